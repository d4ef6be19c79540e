"""What a parity Job's pod left behind: its termination message, a ParityReport as JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from conch.api.kinds import JOB
from conch.observe.warmup import ended_words, given_up, terminated
from conch_contract import ParityReport, names


def parities(pods: Iterable[Mapping[str, Any]], children: Iterable[Mapping[str, Any]]) -> dict[str, ParityReport]:
    """Return what came of comparisons, by candidate: the pod's own report, or else why the Job was given up.

    A pod that outlives its Job for a moment belongs to an earlier try, and says nothing of this one.
    """
    children = [child for child in children if child["kind"] == JOB.name]
    jobs = {job["metadata"]["uid"] for job in children if "deletionTimestamp" not in job["metadata"]}
    found: dict[str, ParityReport] = {
        revision: ParityReport(reason="ParityBroken", message=f"The parity Job failed: {why}")
        for revision, why in given_up(children, parity=True)
    }
    for pod in pods:
        meta = pod["metadata"]
        revision = (meta.get("labels") or {}).get(names.LABEL_PARITY)
        if all(owner["uid"] not in jobs for owner in meta.get("ownerReferences") or ()):
            continue
        ended = terminated(pod, names.PARITY_CONTAINER) if revision else None
        if not revision or ended is None:
            continue
        report = _report(ended)
        if report.passing and revision not in found:
            continue  # the Job tries again: the last word is the next pod's, or the Job's
        if revision not in found or found[revision].passing:
            found[revision] = report
    return found


def _report(ended: Mapping[str, Any]) -> ParityReport:
    said = str(ended.get("message") or "").strip()
    try:
        return ParityReport.model_validate_json(said)
    except ValidationError:
        return ParityReport(reason="ParityBroken", message=f"The comparison {ended_words(ended, said)}")
