"""A storageUri of a hub, its storage Secret and the digests of its files."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path, PurePosixPath

import pytest

from conch_agent.digests import check_digest, compute_git_digest, read_chunks
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Item
from conch_agent.sources.hf import HfSource
from conch_agent.sources.hf_answers import TREE, TreeFile, parse_answer
from conch_agent.sources.hf_settings import KEYS, HfSettings, parse_settings
from conch_agent.sources.hf_uri import HubPath, parse_uri
from conch_agent.sources.network import NETWORK_KEYS
from conch_agent.sources.retry_after import read_delay
from conch_agent.sources.secret_settings import Endpoint

WRITE = {
    "HF_TOKEN": "access token",
    "HF_ENDPOINT": "https://hub.example",
    "HF_ALLOW_HTTP": "true or false",
}
WRONG = [
    ("HF_TOKEN", "hf_two words"),
    ("HF_TOKEN", "hf_line\nbreak"),
    ("HF_TOKEN", "hf_tök"),
    ("HF_ENDPOINT", "hub.example"),
    ("HF_ENDPOINT", "https://user:password@hub"),
    ("HF_ENDPOINT", "https://hub/?x=1"),
    ("HF_ENDPOINT", "hf://owner/name"),
    ("HF_ALLOW_HTTP", "maybe"),
]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("hf://owner/name", HubPath("owner/name", "main", "")),
        ("hf://owner/name/", HubPath("owner/name", "main", "", is_folder=True)),
        ("hf://Owner-1/name_1.0@v1.0", HubPath("Owner-1/name_1.0", "v1.0", "")),
        ("hf://owner/name@main/a b/c%2F@d", HubPath("owner/name", "main", "a b/c%2F@d")),
        ("hf://owner/name@refs/pr/1", HubPath("owner/name", "refs/pr/1", "")),
        ("hf://owner/name@refs/pr/1/a", HubPath("owner/name", "refs/pr/1", "a")),
        ("hf://owner/name@refs/convert/onnx/a", HubPath("owner/name", "refs/convert/onnx", "a")),
        ("hf://owner/name@refs%2Fpr%2F1/a", HubPath("owner/name", "refs/pr/1", "a")),
        ("hf://owner/name@refs/heads/a", HubPath("owner/name", "refs", "heads/a")),
        ("hf://owner/datasets/a", HubPath("owner/datasets", "main", "a")),
    ],
)
def test_a_uri(uri: str, expected: HubPath) -> None:
    assert parse_uri(uri) == expected


@pytest.mark.parametrize(
    "uri",
    [
        *("hf://", "hf://name", "hf://owner/", "hf:///name", "hf://owner/name@", "hf://owner/name@/a"),
        *("hf://owner/name@a@b", "hf://-owner/name", "hf://owner/.name", "hf://owner/na me", "hf://owner/name?a"),
        *("hf://owner/name@..", "hf://owner/name@%2e", "hf://owner/name@%00", "hf://owner/name@%0a/model.onnx"),
        *("hf://owner/name#a", "hf://owner/name@a b", "hf://user:password@hub/owner/name", "hf://owner@main/name"),
    ],
)
def test_a_uri_of_another_form(uri: str) -> None:
    with pytest.raises(Failure) as raised:
        HfSource(uri, {})
    assert raised.value.reason == Reason.UNSUPPORTED
    assert "Write hf://owner/name or hf://owner/name@revision/path" in raised.value.message


def test_urls_are_those_of_the_client_of_hugging_face() -> None:
    place = parse_uri("hf://owner/name@release%2F1/onnx/1")
    assert place.info_url == "/api/models/owner/name/revision/release%2F1"
    assert place.build_tree_url("abc", "onnx/1", recursive=True) == (
        "/api/models/owner/name/tree/abc/onnx%2F1?recursive=true"
    )
    assert place.build_file_url("abc", "onnx/a b%#?.onnx") == "/owner/name/resolve/abc/onnx/a%20b%25%23%3F.onnx"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"oid": "a" * 40}, (4, "a" * 40, f"git:{'a' * 40}")),
        ({"oid": "b" * 40, "lfs": {"oid": "c" * 64, "size": 5}}, (5, "c" * 64, f"sha256:{'c' * 64}")),
        ({"oid": "d" * 40, "lfs": None, "xetHash": "e" * 64}, (4, "d" * 40, f"git:{'d' * 40}")),
        ({"oid": "e" * 64}, (4, "e" * 64, "")),
        ({"oid": "f" * 40 + "\n"}, (4, "f" * 40 + "\n", "")),
        ({"oid": "md5", "lfs": {"oid": "md5", "size": 5}}, (5, "md5", "")),
    ],
)
def test_a_file_has_a_digest_where_its_ids_are_those_of_git(
    changes: dict[str, object], expected: tuple[int, str, str]
) -> None:
    body = json.dumps([{"type": "file", "path": "a", "size": 4, **changes}, {"type": "directory", "path": "b"}])
    file, folder = parse_answer(body.encode(), TREE, "hf://o/n", "https://hub")
    assert isinstance(file, TreeFile)
    assert not isinstance(folder, TreeFile)
    entry = file.to_entry("a", "commit")
    assert (entry.size, entry.tag, entry.digest) == expected


def _refuse(values: dict[str, str], reason: Reason = Reason.INVALID_SECRET) -> str:
    with pytest.raises(Failure) as raised:
        parse_settings(values)
    assert raised.value.reason == reason
    return raised.value.message


def test_every_key_has_its_row() -> None:
    assert set(WRITE) == set(KEYS) - set(NETWORK_KEYS)
    assert {key for key, _ in WRONG} == set(WRITE)


@pytest.mark.parametrize("key", WRITE)
def test_an_empty_value(key: str) -> None:
    message = _refuse({key: " "})
    assert message.startswith(f"{key} in the storage Secret is empty. Write ")
    assert WRITE[key] in message


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_value_of_the_wrong_form(key: str, value: str) -> None:
    message = _refuse({key: value})
    assert message.startswith(f"{key} in the storage Secret ")
    assert key != "HF_TOKEN" or value not in message


def test_settings() -> None:
    assert parse_settings({}).endpoint == Endpoint("https://huggingface.co", "huggingface.co", 443)
    hub = Endpoint("http://hub:8080/api", "hub", 8080)
    values = {"HF_ENDPOINT": "http://hub:8080/api/", "HF_TOKEN": " hf_a\n"}
    assert "HF_ALLOW_HTTP=true" in _refuse(values, Reason.INSECURE_ENDPOINT)
    assert parse_settings({**values, "HF_ALLOW_HTTP": "true", "AWS_REGION": "a b"}) == HfSettings(
        "hf_a", hub, allow_http=True
    )
    assert "https://hub:8080, or http://hub:8080 with HF_ALLOW_HTTP=true" in _refuse({"HF_ENDPOINT": "hub:8080"})


def test_a_retry_by_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < read_delay({"Retry-After": date}) <= 90
    assert read_delay({"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT", "RateLimit": '"api";r=0;t=9'}) == 0
    assert read_delay({"RateLimit": '"api";r=7;t=9'}) == 0, "requests remain"


@pytest.mark.parametrize("kind", ["sha256", "git"])
def test_a_digest_is_that_of_the_whole_content(tmp_path: Path, kind: str) -> None:
    content = b"content"
    file = tmp_path / "file"
    file.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    digest = f"sha256:{sha256}" if kind == "sha256" else compute_git_digest(len(content), [content[:3], content[3:]])
    item = Item(PurePosixPath("file"), len(content), "", "file", digest=digest)
    check_digest(item, "hf://o/n", sha256, len(content), read_chunks(file))
    file.write_bytes(b"another")
    with pytest.raises(Failure, match=f"{digest} is declared"):
        check_digest(item, "hf://o/n", "0" * 64, len(content), read_chunks(file))
