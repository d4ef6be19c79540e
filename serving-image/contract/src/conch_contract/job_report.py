"""The report of a revision Job: the termination message of its pod's container, as JSON."""

from typing import ClassVar, Final

from conch_contract._base import Wire

EXIT_FINAL: Final = 1
"""Exit status of a program after a failure that no retry cures: the Job starts no other pod."""
_EXIT_RETRYABLE: Final = 2


class JobReport(Wire):
    """Result of a revision Job. Each Job has a subclass with its measurements.

    Attributes:
        reason: Reason of the result in one CamelCase word.
        message: The sentence to the reason.
    """

    successes: ClassVar[frozenset[str]]
    """Reasons of a Job that did its work, whatever it measured."""

    retryable: ClassVar[frozenset[str]]
    """Reasons of failures that a retry may cure: no answer in time, or a failure of the program itself."""

    reason: str = ""
    message: str = ""

    @property
    def has_failed(self) -> bool:
        """True if the Job has not succeeded."""
        return self.reason not in self.successes

    @property
    def is_retryable(self) -> bool:
        """True if the Job retries after this report."""
        return self.reason in self.retryable

    @property
    def exit_status(self) -> int:
        """Exit status of the program: 0 after a success."""
        if not self.has_failed:
            return 0
        return _EXIT_RETRYABLE if self.is_retryable else EXIT_FINAL
