"""Errors of a store as the reason and the message that the user reads; and details of the agent's pod."""

from __future__ import annotations

from pathlib import Path

import pytest

from conch_agent.backoff import Backoff
from conch_agent.control import ensure_key
from conch_agent.reasons import Failure, Reason
from conch_agent.repository_model import check_name
from conch_agent.settings import Settings, parse_arguments
from conch_agent.sources.answer import read_body
from conch_agent.sources.s3_errors import classify, find_role_terms
from conch_agent.sources.storage_secret import read_secret
from conch_agent.sources.store_errors import Target, classify_version
from conch_agent.sources.store_errors import classify as classify_by_terms
from conch_contract import ModelSource, names
from conch_contract.schemes import SCHEMES

_PREFIX = "Generic S3 error: Error performing GET http://s/b in 2ms - Server returned non-2xx status code: "


@pytest.mark.parametrize(
    ("text", "reason", "part"),
    [
        (f"{_PREFIX}404 Not Entry: <Error><Code>NoSuchBucket</Code></Error>", Reason.BUCKET_NOT_FOUND, "'b'"),
        (f"{_PREFIX}403 Forbidden: <Error><Code>InvalidAccessKeyId</Code></Error>", Reason.ACCESS_DENIED, "Secret"),
        (f"{_PREFIX}403 Forbidden: ", Reason.ACCESS_DENIED, "AWS_SECRET_ACCESS_KEY"),
        ("Generic S3 error: Error performing GET x - no XML", Reason.FETCH_FAILED, "cannot be read (no XML). Does"),
        (f"{_PREFIX}500 Internal Server Error: ", Reason.FETCH_FAILED, "500"),
    ],
)
def test_the_stores_errors(text: str, reason: Reason, part: str) -> None:
    failure = classify(RuntimeError(text), "s3://b/m", "b", "http://s")
    assert failure.reason == reason
    assert part in failure.message
    assert failure.message.startswith("s3://b/m")


def test_credentials_that_have_expired_and_those_of_a_role() -> None:
    """A remedy names what the user has: no key of the Secret where the credentials are those of the pod."""
    error = RuntimeError(f"{_PREFIX}400 Bad Request: <Error><Code>ExpiredToken</Code></Error>")
    failure = classify(error, "s3://b/m", "b", "")
    assert failure.message.endswith("in the storage Secret have expired: write others, or a key that lasts.")
    terms = find_role_terms("arn:aws:iam::1:role/models")
    failure = classify_by_terms(error, Target("s3://b/m", "b", ""), terms)
    assert failure.reason == Reason.ACCESS_DENIED
    assert "The agent requests other credentials and tries again." in failure.message
    refused = classify_version(RuntimeError(f"{_PREFIX}403 Forbidden: "), "m", "1", terms)
    assert refused
    assert "allow s3:GetObjectVersion to the credentials of the pod, and the pod" in refused.message


def test_waits_grow_to_the_longest_and_are_never_in_step() -> None:
    waits = [Backoff(first=1, longest=60) for _ in range(2)]
    series = [[each.draw_delay() for _ in range(12)] for each in waits]
    assert series[0] != series[1]
    for wait, full in zip(series[0], [1, 2, 4, 8, 16, 32, 60, 60], strict=False):
        assert full / 2 <= wait <= full


def test_the_control_key_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "control" / "key"
    key = ensure_key(file)
    assert len(key) == 64
    assert file.stat().st_mode & 0o777 == 0o440
    assert ensure_key(file) == key
    assert [path.name for path in file.parent.iterdir()] == ["key"]


def test_a_mounted_secret_is_read_without_kubernetes_own_files(tmp_path: Path) -> None:
    data = tmp_path / "..2026"
    data.mkdir()
    (data / "AWS_REGION").write_text("eu-west-1\n")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "AWS_REGION").symlink_to("..data/AWS_REGION")
    assert read_secret(tmp_path, SCHEMES["s3"].secret_keys) == {"AWS_REGION": "eu-west-1"}
    assert read_secret(tmp_path / "absent", SCHEMES["s3"].secret_keys) == {}


@pytest.mark.parametrize("name", ["../m", "a/b", "", ".hidden", "-flag", "a b"])
def test_names_that_cannot_be_folders(name: str) -> None:
    with pytest.raises(Failure):
        check_name(ModelSource(name=name, format="onnx", storage_uri="s3://b/m"))


def test_default_paths_of_the_agent_are_those_of_the_contract() -> None:
    settings = parse_arguments([])
    assert settings == Settings()
    assert str(settings.repository) == names.REPOSITORY_DIR
    assert str(settings.downloads) == names.DOWNLOAD_DIR
    assert str(settings.control_key) == f"{names.CONTROL_DIR}/{names.CONTROL_KEY_FILE}"
    assert str(settings.find_manifest()) == f"{names.MANIFEST_DIR}/{names.MANIFEST_FILE}"


def test_an_answer_that_is_nested_without_end_is_read_as_text() -> None:
    assert read_body(500, "no", '{"a":' * 50_000).code == ""


@pytest.mark.parametrize("body", ["<" * 1_000_000, "<title>" * 200_000, "<a>" * 400_000, "x" * 5_000_000])
def test_a_long_error_of_a_store_is_read_as_far_as_a_message_needs_it(body: str) -> None:
    """Of such a text a regular expression would take minutes, on the event loop of all models."""
    failure = classify(OSError(f"{_PREFIX}400 Bad Request: {body}"), "s3://b/m", "b", "")
    assert failure.reason == Reason.FETCH_FAILED
    assert len(failure.message) < 1000
