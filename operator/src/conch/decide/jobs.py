"""Why a revision Job has no pod."""

from typing import Final

from conch.api.reasons import Reason
from conch.observe import Finding, Track
from conch_contract import JobReport
from conch_contract.revision_jobs import RevisionJob

_FAILED_CREATE: Final = "FailedCreate"  # the reason of the Job controller's event


def find_refused_job(track: Track, revision: str, job: RevisionJob[JobReport]) -> Finding | None:
    """Return why the API server refuses the pod of a revision's Job."""
    name = job.format_name(revision)
    for uid, body in track.idle_jobs.items():
        warning = track.warnings.get(uid)
        if body["metadata"]["name"] == name and warning is not None and warning.reason == _FAILED_CREATE:
            return Finding(Reason.JOB_PODS_REFUSED, f"The cluster refuses the pod of Job {name}: {warning.message}")
    return None
