"""What a warm-up Job's pod left behind: its termination message, a WarmupReport as JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from conch.api.kinds import JOB
from conch_contract import WarmupReport, names


def warmups(pods: Iterable[Mapping[str, Any]], children: Iterable[Mapping[str, Any]]) -> dict[str, WarmupReport]:
    """Return what came of warm-ups, by revision: the pod's own report, or else why the Job was given up."""
    found = {}
    for job in children:
        failed = next((c for c in (job.get("status") or {}).get("conditions") or () if c["type"] == "Failed"), None)
        if job["kind"] == JOB.name and failed is not None and failed["status"] == "True":
            told = WarmupReport(reason="WarmupBroken", message=f"The warm-up Job failed: {failed['message']}")
            found[job["metadata"]["labels"][names.LABEL_REVISION]] = told
    for pod in pods:
        report = report_of(pod)
        revision = (pod["metadata"].get("labels") or {}).get(names.LABEL_WARMUP, "")
        if report is None or (report.passing and revision not in found):
            continue  # the Job tries again: the last word is the next pod's, or the Job's
        if revision not in found or found[revision].failed:
            found[revision] = report
    return found


def report_of(body: Mapping[str, Any]) -> WarmupReport | None:
    """Read the report of an ended warm-up pod (trimmed or not); None of one that runs, or of another pod.

    A pod that ended without a report (killed, evicted, an older image) gets one that says how it ended.
    """
    if names.LABEL_WARMUP not in (body["metadata"].get("labels") or {}):
        return None
    status = body.get("status") or {}
    for container in [*(status.get("containers") or ()), *(status.get("containerStatuses") or ())]:
        ended = container.get("state", {}).get("terminated")
        if container["name"] == names.WARMUP_CONTAINER and ended is not None:
            return _report(ended)
    return None


def _report(ended: Mapping[str, Any]) -> WarmupReport:
    said = str(ended.get("message") or "").strip()
    try:
        return WarmupReport.model_validate_json(said)
    except ValidationError:
        how = f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode', '?')}"
        message = f"The warm-up ended without a report ({how})." + (f" The end of its log: {said}" if said else "")
        return WarmupReport(reason="WarmupBroken", message=message)
