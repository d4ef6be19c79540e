"""The registry of reasons: every reason of the operator comes from it, and users can read what it means."""

import ast
import re
from pathlib import Path
from typing import Final

from conch.api.reasons import Reason, build_reference
from conch_agent.reasons import Reason as AgentReason
from conch_agent.reasons import Retry, WarningReason
from conch_contract.report import CRASHED

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = ROOT / "operator" / "src" / "conch"
# Calls that take a reason, with the index of the argument and its name.
CALLS: Final = {"Finding": 0, "PendingCondition": 2, "Event": 1, "ApplyRejected": 1, "FailedWrite": 0}


def test_no_reason_is_a_literal() -> None:
    literals = [
        f"{file.relative_to(ROOT)}:{call.lineno}: {argument.value!r}"
        for file in SOURCES.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in CALLS
        for argument in (
            *call.args[CALLS[call.func.id] : CALLS[call.func.id] + 1],
            *(keyword.value for keyword in call.keywords if keyword.arg == "reason"),
        )
        if isinstance(argument, ast.Constant)
    ]
    assert not literals, "write Reason.<NAME>, and add it to conch.api.reasons:\n" + "\n".join(literals)


def test_each_reason_is_used_and_has_a_meaning() -> None:
    sources = "\n".join(file.read_text() for file in SOURCES.rglob("*.py") if file.name != "reasons.py")
    assert [reason.name for reason in Reason if not re.search(rf"Reason\.{reason.name}\b", sources)] == []
    assert all(re.fullmatch(r"[A-Z].*\.", reason.meaning) for reason in Reason)


def test_the_reference_page_has_each_reason() -> None:
    page = (ROOT / "docs" / "reference" / "reasons.md").read_text()
    assert page == build_reference(), "run make generate"
    assert all(f"| `{reason}` |" in page for reason in Reason)


def test_the_remedies_are_of_reasons_that_exist() -> None:
    """A reason that was renamed is renamed in Operations too."""
    operations = (ROOT / "docs" / "operations.md").read_text()
    table = operations[operations.index("| the reason |") :].split("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`([A-Z]\w+)`", row.split("|")[1])}
    foreign = {"InternalError", "ServiceUnavailable", "Timeout"}  # the API server's
    assert named - set(Reason) - foreign - set(WarningReason) == set()


# Each retry of these loads the model, sends requests to Triton, reads all files, or downloads packages.
COSTLY: Final = {
    *("ContentChanged", "DecryptionFailed", "DigestMismatch", "EnvironmentFailed", "InvalidSignature", "NotSigned"),
    *("LoadFailed", "ModelCycle", "ModelMissing"),
    *("WarmupAnswersWrong", "WarmupFailed", "WarmupMissing", "WarmupTimedOut", "WarmupUnreachable"),
}


def test_a_failure_whose_retry_is_costly_is_retried_later() -> None:
    assert {reason for reason in AgentReason if reason.retry is Retry.LATER} == COSTLY
    assert {reason for reason in AgentReason if reason.retry is Retry.AFTER_OTHERS} == CRASHED
