"""The table of revision Jobs, one row each.

A revision Job measures a revision before its first requests of users. Its pod has no API credentials: the result is the
termination message of its one container, a JobReport as JSON.

The names of the Job, of its container and of its label, and the operator's reader derive from these rows. A new Job
needs a row here; a row in `conch.desire.children.PROGRAMS`, for its arguments; and a subclass of `conch_agent.job.Job`
with a script in the agent's pyproject.toml.
"""

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from conch_contract.job_report import JobReport
from conch_contract.names import GROUP
from conch_contract.parity import ParityReport
from conch_contract.warmup import WarmupReport

Report_co = TypeVar("Report_co", bound=JobReport, covariant=True)


@dataclass(frozen=True)
class RevisionJob(Generic[Report_co]):
    """A kind of revision Job.

    Attributes:
        name: Name of the container, and the part of all other names that differs.
        title: The Job in a message.
        activity: The work of its program in a message.
        report: Type of the termination message.
        broken: Reason of a Job that ended without a report. It is one of the report's retryable reasons.
    """

    name: str
    title: str
    activity: str
    report: type[Report_co]
    broken: str

    @property
    def label(self) -> str:
        """Label of the Job and of its pod, with the revision as value. Serving pods do not have it."""
        return f"{GROUP}/{self.name}"

    @property
    def program(self) -> str:
        """The program in the image, which is also the pod's app.kubernetes.io/name."""
        return f"conch-{self.name}"

    def format_name(self, revision: str) -> str:
        """Return the name of a revision's Job.

        Args:
            revision: Name of the revision.

        >>> PARITY.format_name("magika-bcdfghjklm")
        'magika-bcdfghjklm-parity'
        """
        return f"{revision}-{self.name}"


WARMUP: Final = RevisionJob("warmup", "warm-up", "warm-up", WarmupReport, broken="WarmupBroken")
PARITY: Final = RevisionJob("parity", "parity", "comparison", ParityReport, broken="ParityBroken")

REVISION_JOBS: Final[tuple[RevisionJob[JobReport], ...]] = (WARMUP, PARITY)
"""The rows, in the order in which they run."""


def find_job(name: str) -> RevisionJob[JobReport] | None:
    """Return the row of a Job of the cluster; None where the name is of none.

    Args:
        name: Name of the Job.

    >>> [job and job.program for job in map(find_job, ("magika-bcdfghjklm-warmup", "magika-bcdfghjklm"))]
    ['conch-warmup', None]
    """
    return next((job for job in REVISION_JOBS if name.endswith(job.format_name(""))), None)
