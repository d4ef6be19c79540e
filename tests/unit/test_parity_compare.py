"""The comparison of answers, and the command line and the report of the parity Job's program."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from conch_agent.job import write_report
from conch_agent.parity.compare import Difference, Incomparable, compare
from conch_agent.parity.job import ParityJob, make_requests
from conch_agent.reasons import Failure
from conch_contract import Disagreement, Parity, ParityReport

NAN, INF = math.nan, math.inf


def tensor(data: list[Any], shape: list[int] | None = None, datatype: str = "FP32") -> dict[str, Any]:
    return {"datatype": datatype, "shape": shape or [len(data)], "data": data}


TOLERANCE, COSINE, ARGMAX = Parity(bound=0.01), Parity(method="cosine", bound=0.999), Parity(method="argmax")
ROWS = [0.1, 0.7, 0.2, 0.5, 0.3, 0.2]

# way, what the stable revision answers, what the candidate answers, where and how they differ; None: they agree.
TABLE: dict[str, tuple[Parity, dict[str, Any], dict[str, Any], tuple[int | None, str, str] | None]] = {
    "equal": (TOLERANCE, tensor([1.0, 2.0]), tensor([1.0, 2.0]), None),
    "within a share of the value": (TOLERANCE, tensor([100.0]), tensor([100.9]), None),
    "within a share of one": (TOLERANCE, tensor([0.001]), tensor([0.009]), None),
    "just on the bound": (TOLERANCE, tensor([1.0]), tensor([1.01]), None),
    "beyond a share": (TOLERANCE, tensor([1.0, 100.0]), tensor([1.0, 102.0]), (1, "100", "102")),
    "the largest difference": (
        TOLERANCE,
        tensor([1.0, 1.0, 1.0]),
        tensor([1.1, 3.0, 2.0]),
        (1, "1", "3"),
    ),
    "nothing is off by nothing": (Parity(bound=0.0), tensor([1.0]), tensor([1.0]), None),
    "a tolerance of nothing": (Parity(bound=0.0), tensor([1.0]), tensor([1.0000001]), (0, "1", "1")),
    "both are no number": (TOLERANCE, tensor([NAN, INF]), tensor([NAN, INF]), None),
    "one is no number": (TOLERANCE, tensor([1.0, 2.0]), tensor([1.0, NAN]), (1, "2", "nan")),
    "one is infinite": (TOLERANCE, tensor([INF, 2.0]), tensor([-INF, 2.0]), (0, "inf", "-inf")),
    "half the precision": (TOLERANCE, tensor([1.0]), tensor([1.001], datatype="FP16"), None),
    "whole numbers are equal or not": (
        TOLERANCE,
        tensor([2**60], datatype="INT64"),
        tensor([2**60 + 1], datatype="INT64"),
        (0, str(2**60), str(2**60 + 1)),
    ),
    "texts": (
        TOLERANCE,
        tensor(["cat"], datatype="BYTES"),
        tensor(["dog"], datatype="BYTES"),
        (0, "cat", "dog"),
    ),
    "a text for a number": (TOLERANCE, tensor([1.0]), tensor(["one"], datatype="BYTES"), (0, "1", "one")),
    "another shape": (
        TOLERANCE,
        tensor([1.0]),
        tensor([1.0], [1, 1]),
        (None, "the shape [1]", "the shape [1, 1]"),
    ),
    "nothing at all": (TOLERANCE, tensor([], [0, 4]), tensor([], [0, 4]), None),
    "the same direction": (COSINE, tensor([1.0, 2.0]), tensor([10.0, 20.0]), None),
    "itself, at a bound of one": (
        Parity(method="cosine", bound=1.0),
        tensor([0.1, 0.7]),
        tensor([0.2, 1.4]),
        None,
    ),
    "another direction": (COSINE, tensor([1.0, 0.0]), tensor([0.6, 0.8]), (1, "0", "0.8")),
    "the worst row": (
        COSINE,
        tensor([1, 0, 1, 0], [2, 2]),
        tensor([1, 0.1, -1, 0], [2, 2]),
        (2, "1", "-1"),
    ),
    "two zeros": (COSINE, tensor([0.0, 0.0]), tensor([0.0, 0.0]), None),
    "one zero": (COSINE, tensor([1.0, 0.0]), tensor([0.0, 0.0]), (0, "1", "0")),
    "huge vectors": (COSINE, tensor([1e300, 1e300]), tensor([1e300, 1e300 * 1.0001]), None),
    "a vector that is none": (COSINE, tensor([1.0, 0.0]), tensor([1.0, NAN]), (1, "0", "nan")),
    "the same class": (ARGMAX, tensor(ROWS, [2, 3]), tensor([0.0, 9.0, 0.2, 0.9, 0.3, 0.2], [2, 3]), None),
    "another class": (
        ARGMAX,
        tensor(ROWS, [2, 3]),
        tensor([0.1, 0.7, 0.2, 0.5, 0.3, 0.9], [2, 3]),
        (3, "0.5", "0.5"),
    ),
    "a tie": (ARGMAX, tensor([0.5, 0.5]), tensor([0.4, 0.6]), None),
    "a class that is none": (ARGMAX, tensor([0.4, 0.6]), tensor([NAN, 0.6]), (0, "0.4", "nan")),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_method_decides_whether_two_outputs_agree(case: str) -> None:
    contract, stable, candidate, differ = TABLE[case]
    found = compare(contract, {"y": stable}, {"y": candidate})
    if differ is None:
        assert found is None
        return
    assert isinstance(found, Difference)
    assert (found.disagreement.index, found.disagreement.stable, found.disagreement.candidate) == differ
    assert found.disagreement.output == "y"


@pytest.mark.parametrize(
    ("contract", "names"),
    [
        (TOLERANCE, {"label", "y"}),
        (COSINE, {"y"}),
        (ARGMAX, {"y"}),
        (TOLERANCE.model_copy(update={"outputs": ("label",)}), {"label"}),
        (ARGMAX.model_copy(update={"outputs": ("ids",)}), {"ids"}),
    ],
    ids=["tolerance", "cosine", "argmax", "tolerance of one", "argmax of one"],
)
def test_the_method_selects_the_compared_outputs(contract: Parity, names: set[str]) -> None:
    stable = {"y": tensor([0.1, 0.9]), "label": tensor(["cat"], datatype="BYTES")}
    other = {"y": tensor([0.9, -0.1]), "label": tensor(["dog"], datatype="BYTES")}
    if "ids" in names:
        stable["ids"], other["ids"] = (tensor(ids, datatype="INT32") for ids in ([1, 2], [2, 1]))
    for name in stable:
        found = compare(contract, stable, {**stable, name: other[name]})
        assert isinstance(found, Difference) == (name in names)


def test_an_output_of_only_one_revision_is_not_compared_unless_named() -> None:
    both = {"y": tensor([1.0]), "more": tensor([1.0])}
    one = {"y": tensor([1.0])}
    assert compare(TOLERANCE, both, one) is None, "only common outputs are compared"
    assert compare(TOLERANCE, one, both) is None
    named = TOLERANCE.model_copy(update={"outputs": ("more",)})
    missing = compare(named, both, one)
    assert isinstance(missing, Difference)
    assert missing.disagreement.candidate == "none of that name"
    nothing = compare(named, one, both)
    assert isinstance(nothing, Incomparable)
    assert "'more', but y (FP32 [1])" in nothing.message
    assert isinstance(compare(TOLERANCE, one, {"z": tensor([1.0])}), Difference), "no common output is a difference"


def test_outputs_that_cannot_disagree_are_no_agreement() -> None:
    lone = {"y": tensor([0.3], [1, 1]), "n": tensor([1, 2], datatype="INT32")}
    found = compare(ARGMAX, lone, lone)
    assert isinstance(found, Incomparable)
    assert "at least two along its last axis" in found.message


def test_generated_requests_differ_and_are_reproducible() -> None:
    metadata = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}
    one, other = make_requests(metadata, {}, 20), make_requests(metadata, {}, 20)
    assert [request.content for request in one] == [request.content for request in other]
    assert len({request.content for request in one}) == 20


@pytest.mark.parametrize(("datatype", "enough"), [("BYTES", True), ("FP16", True), ("BF16", True), ("INT64", False)])
def test_whole_numbers_allow_one_request_and_more_are_an_error(datatype: str, enough: bool) -> None:
    metadata = {"inputs": [{"name": "x", "datatype": datatype, "shape": [4]}]}
    if enough:
        assert len(make_requests(metadata, {}, 5)) == 5
        return
    with pytest.raises(Failure, match="Only 1 different requests can be made") as raised:
        make_requests(metadata, {}, 5)
    assert raised.value.reason == "ParityTooFewRequests"
    assert len(make_requests(metadata, {}, 1)) == 1


def test_the_job_parses_its_command_line(tmp_path: Path) -> None:
    contract = Parity(method="argmax", outputs=("logits",), requests=7)
    job = ParityJob.parse(
        ["--stable=old.demo.svc", "--candidate=localhost:81", f"--parity={contract.to_json()}", f"--root={tmp_path}"]
    )
    assert (job.stable, job.candidate, job.parity) == ("old.demo.svc:8000", "localhost:81", contract)
    assert job.settings.find_manifest().is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("Compared", 0),
        ("ParityNothingCompared", 1),
        ("ParityTooFewRequests", 1),
        ("WarmupMissing", 1),
        ("ParityUnreachable", 2),
        ("ParityTimedOut", 2),
        ("InternalError", 2),
    ],
)
def test_the_exit_status_depends_on_whether_a_retry_may_help(reason: str, code: int) -> None:
    assert ParityReport(reason=reason).exit_status == code


def test_a_report_fits_into_a_termination_message(tmp_path: Path) -> None:
    worst = Disagreement(request="requests[0]", output="y", index=3, stable="1", candidate="2")
    report = ParityReport(requests=2, compared=2, agreed=1, worst=worst, reason="Compared", message="é" * 5000)
    write_report(report, tmp_path / "message")
    text = (tmp_path / "message").read_bytes()
    assert len(text) <= 4096
    read = ParityReport.model_validate_json(text)
    assert (read.agreed, read.worst) == (1, worst)
    assert json.loads(text)["worst"]["candidate"] == "2"
    shown = worst.model_dump_json(exclude_defaults=True)
    job = ParityJob.parse(["--stable=a", "--candidate=b"])
    assert job.format_report(report).endswith(f"2 requests, 2 compared, 1 agree; worst: {shown}")
