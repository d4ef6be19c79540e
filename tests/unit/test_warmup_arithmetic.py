"""The pure parts of the warm-up's program: percentiles, answers, requests that are made from metadata."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conch_agent.reasons import Failure, Reason
from conch_agent.warmup import rounds
from conch_agent.warmup.answers import describe_mismatch, read_outputs
from conch_agent.warmup.job import WarmupJob
from conch_agent.warmup.plan import count_instances
from conch_agent.warmup.requests import build_inline_requests, read_config_map, read_folder, synthesise
from conch_contract import Warmup, WarmupReport, WarmupRequest, names


@pytest.mark.parametrize("pods", [2, 3, 8, 50])
def test_the_number_of_connections_reaches_every_pod(pods: int) -> None:
    chance = random.Random(pods)  # noqa: S311  a trial, not a secret
    trials = 2000
    missed = sum(
        len({chance.randrange(pods) for _ in range(rounds.count_connections(pods))}) < pods for _ in range(trials)
    )
    assert missed <= 10  # 2 are expected; over 10 has a chance of less than 1 in 100,000


Y = {"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0, 2000.0]}
LABEL = {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["cat"]}


@pytest.mark.parametrize(
    ("expected", "mismatch"),
    [
        ([{"name": "y", "data": [1.0009, 2001.9]}], ""),
        ([{"name": "y", "data": [[1], [2000]]}], ""),
        ([{"name": "y", "data": [1.002, 2000]}], "output 'y' at index 0: expected 1.002, got 1.0"),
        ([{"name": "y", "data": [1, 2003]}], "output 'y' at index 1: expected 2003, got 2000.0"),
        ([{"name": "y", "data": [1]}], "output 'y' has 2 values, expected 1"),
        ([{"name": "y", "shape": [1, 2], "data": [1, 2000]}], "output 'y' has the shape [2], expected [1, 2]"),
        ([{"name": "y", "data": ["one", 2000]}], "output 'y' at index 0: expected \"one\", got 1.0"),
        ([{"name": "z", "data": [1]}], "there is no output 'z'; the answer has label, y"),
        ([{"name": "label", "data": ["cat"]}], ""),
        ([{"name": "label", "data": ["dog"]}], 'output \'label\' at index 0: expected "dog", got "cat"'),
        ([], ""),
    ],
)
def test_an_answer_is_compared_with_the_expected_one(expected: list[dict[str, Any]], mismatch: str) -> None:
    content = json.dumps({"outputs": [Y, LABEL]}).encode()
    assert describe_mismatch(expected, read_outputs(content, None), tolerance=0.001) == mismatch


def test_not_a_number_is_no_expected_number() -> None:
    got = {"y": {"name": "y", "datatype": "FP32", "data": [float("nan")]}}
    assert "expected 1.0, got NaN" in describe_mismatch([{"name": "y", "data": [1.0]}], got, 0.001)


def test_whole_numbers_are_compared_as_they_are() -> None:
    got = {"y": {"name": "y", "datatype": "INT64", "data": [1_000_000]}}
    assert "expected 1000001" in describe_mismatch([{"name": "y", "data": [1_000_001]}], got, 0.001)


@pytest.mark.parametrize(
    ("datatype", "raw", "values"),
    [
        ("FP32", np.array([1.5, -2], "<f4").tobytes(), [1.5, -2.0]),
        ("FP16", np.array([0.5], "<f2").tobytes(), [0.5]),
        ("BF16", struct.pack("<HH", 0x3F80, 0xC000), [1.0, -2.0]),
        ("INT64", np.array([-7], "<i8").tobytes(), [-7]),
        ("BOOL", b"\x01\x00", [True, False]),
        ("BYTES", b"\x02\x00\x00\x00hi\x00\x00\x00\x00", ["hi", ""]),
    ],
)
def test_binary_outputs_are_read(datatype: str, raw: bytes, values: list[Any]) -> None:
    def output(name: str, size: int) -> dict[str, Any]:
        parameters = {"binary_data_size": size}
        return {"name": name, "datatype": datatype, "shape": [len(values)], "parameters": parameters}

    head = json.dumps({"outputs": [output("a", len(raw)), output("b", len(raw))]}).encode()
    found = read_outputs(head + raw + raw, len(head))
    assert found["a"]["data"] == values
    assert found["b"]["data"] == values


def tensors(content: bytes, header: int | None) -> dict[str, dict[str, Any]]:
    """Return the inputs of a request, as they would be read of an answer."""
    assert header is not None
    head = json.dumps({"outputs": json.loads(content[:header])["inputs"]}).encode()
    return read_outputs(head + content[header:], len(head))


def test_a_request_is_made_from_the_metadata() -> None:
    kinds = ["BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16", "BYTES"]
    metadata = {"inputs": [{"name": kind, "datatype": kind, "shape": ["-1", "2", -1]} for kind in kinds]}
    made = synthesise(metadata, {"max_batch_size": 8})
    inputs = tensors(made.content, made.header)
    assert {tuple(tensor["shape"]) for tensor in inputs.values()} == {(1, 2, 1)}
    for kind, tensor in inputs.items():
        assert len(tensor["data"]) == 2, kind
        if kind in {"FP16", "FP32", "FP64"}:
            assert all(0 < value < 1 for value in tensor["data"]), kind
        else:
            assert set(tensor["data"]) == ({"warm-up"} if kind == "BYTES" else {0}), kind
    assert made == synthesise(metadata, {"max_batch_size": 8})


def test_an_optional_input_is_left_out_and_a_sequence_is_begun_and_ended() -> None:
    metadata = {"inputs": [{"name": name, "datatype": "INT8", "shape": [1]} for name in ("a", "b")]}
    config = {"input": [{"name": "a"}, {"name": "b", "optional": True}], "sequence_batching": {}}
    made = synthesise(metadata, config)
    body = json.loads(made.content[: made.header])
    assert [tensor["name"] for tensor in body["inputs"]] == ["a"]
    assert body["parameters"]["sequence_start"] is True
    assert body["parameters"]["sequence_end"] is True


@pytest.mark.parametrize(
    ("groups", "count"),
    [([], 1), ([{"count": 3}], 3), ([{"count": 2, "gpus": [0, 1]}], 4), ([{"count": 1}, {"count": 2}], 3)],
)
def test_a_request_for_each_instance(groups: list[dict[str, Any]], count: int) -> None:
    assert count_instances({"instance_group": groups}) == count


def test_inline_requests_are_posted_as_they_are_written() -> None:
    body = {"id": "7", "inputs": [{"name": "x"}], "parameters": {"priority": 1}}
    [first, second] = build_inline_requests([WarmupRequest(body=body), WarmupRequest(name="b", body={"inputs": []})])
    assert (first.label, second.label) == ("requests[0]", "requests[1] (b)")
    assert json.loads(first.content) == {**body, "parameters": {"priority": 1, "binary_data_output": True}}


def test_a_config_map_has_a_request_a_key(tmp_path: Path) -> None:
    folder = tmp_path / "wake"
    (folder / "..2026").mkdir(parents=True)
    (folder / "..2026" / "b.json").write_text('{"inputs": []}')
    (folder / "..data").symlink_to("..2026")
    (folder / "b.json").symlink_to("..data/b.json")
    (folder / "a").write_text('{"inputs": [], "expected": [{"name": "y", "data": [1]}]}')
    requests = read_config_map(Warmup(config_map="wake"), tmp_path)
    assert [request.label for request in requests] == ["ConfigMap wake, key a", "ConfigMap wake, key b.json"]
    assert requests[0].expected == ({"name": "y", "data": [1]},)
    assert "expected" not in json.loads(requests[0].content)


def test_a_missing_config_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="'wake'") as failure:
        read_config_map(Warmup(config_map="wake"), tmp_path)
    assert failure.value.reason == Reason.WARMUP_MISSING


def test_a_folder_without_requests_is_named(tmp_path: Path) -> None:
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "raw_data").write_bytes(b"1")
    with pytest.raises(Failure, match=r"s3://b/m has no file warmup/\*\.json") as failure:
        read_folder(Warmup(path="warmup"), "s3://b/m", tmp_path)
    assert failure.value.reason == Reason.WARMUP_MISSING


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", '{"inputs": [], "expected": {}}', '{"expected": [1]}', '{"parameters": 1}', "\ud800"]
)
def test_a_file_that_is_no_request_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "bad.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(Failure, match=r"Warm-up request warmup/bad.json is no") as failure:
        read_folder(Warmup(path="warmup"), "s3://b/m", tmp_path)
    assert failure.value.reason == Reason.WARMUP_FAILED


def test_a_job_finds_everything_at_the_paths_of_the_contract() -> None:
    job = WarmupJob.parse(["--host", "m-1.demo.svc", "--pods", "3"])
    assert job.root == "http://m-1.demo.svc:8000"
    assert job.pods == 3
    assert str(job.settings.find_manifest()) == f"{names.MANIFEST_DIR}/{names.MANIFEST_FILE}"
    assert str(job.settings.warmup) == names.WARMUP_DIR
    assert str(job.message) == "/dev/termination-log"


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("WarmedUp", 0),
        ("WarmupNotStable", 0),
        ("WarmupFailed", 1),
        ("WarmupAnswersWrong", 1),
        ("WarmupMissing", 1),
        ("AccessDenied", 1),
        ("WarmupTimedOut", 2),
        ("WarmupUnreachable", 2),
        ("InternalError", 2),
    ],
)
def test_the_exit_status_depends_on_whether_a_retry_helps(reason: str, code: int) -> None:
    assert WarmupReport(reason=reason).exit_status == code


def test_the_report_of_a_job_is_printed_as_a_line() -> None:
    line = WarmupJob.parse(["--host=m"]).format_report(
        WarmupReport(
            requests=250,
            p50_milliseconds=4.06,
            p99_milliseconds=7.9,
            requests_per_second=212.3,
            seconds=1.93,
            stable=True,
            reason="WarmedUp",
        )
    )
    assert line == "WarmedUp: 250 requests, 0 failed, p50 4.1 ms, p99 7.9 ms, 212.3 requests/s, 1.9 s"
