"""What a parity Job's pod left behind: its termination message, a ParityReport as JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

from conch.api.text import read_json
from conch.observe.warmup import ended_words, given_up, pods_of, present, terminated
from conch_contract import ParityReport, names


def parities(pods: Iterable[Mapping[str, Any]], children: Iterable[Mapping[str, Any]]) -> dict[str, ParityReport]:
    """Return what came of comparisons, by candidate: the pod's own report, or else why the Job was given up."""
    jobs = present(children)
    found: dict[str, ParityReport] = {
        revision: ParityReport(reason="ParityBroken", message=f"The parity Job failed: {why}")
        for revision, why in given_up(jobs, parity=True)
    }
    for pod in pods_of(jobs, pods):
        revision = (pod["metadata"].get("labels") or {}).get(names.LABEL_PARITY)
        ended = terminated(pod, names.PARITY_CONTAINER) if revision else None
        if not revision or ended is None:
            continue
        report = _report(ended)
        if report.is_retryable and revision not in found:
            continue  # the Job tries again: the last word is the next pod's, or the Job's
        if revision not in found or found[revision].is_retryable:
            found[revision] = report
    return found


def _report(ended: Mapping[str, Any]) -> ParityReport:
    said = str(ended.get("message") or "").strip()
    try:
        return ParityReport.model_validate(read_json(said))
    except ValueError:
        return ParityReport(reason="ParityBroken", message=f"The comparison {ended_words(ended, said)}")
