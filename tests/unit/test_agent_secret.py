"""The storage Secret, each key times what a value can be: the message names the key and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.sources import open_source
from conch_agent.sources.network import NETWORK_KEYS
from conch_agent.sources.s3 import S3Source
from conch_agent.sources.s3_settings import KEYS, S3Settings, parse_settings
from conch_agent.sources.secret_settings import Endpoint
from conch_agent.sources.storage_secret import read_secret
from conch_contract.schemes import SCHEMES

PAIR = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
WRITE = {
    "AWS_ACCESS_KEY_ID": "access key's id",
    "AWS_SECRET_ACCESS_KEY": "secret key",
    "AWS_SESSION_TOKEN": "token",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": "https://store.example:9000",
    "AWS_ENDPOINT_URL_STS": "https://store.example:9000",
    "AWS_ALLOW_HTTP": "true or false",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true or false",
    "AWS_SKIP_SIGNATURE": "true or false",
    "AWS_REQUEST_PAYER": "true or false",
}
WRONG = [
    ("AWS_ACCESS_KEY_ID", "two words"),
    ("AWS_ACCESS_KEY_ID", "line\nbreak"),
    ("AWS_SECRET_ACCESS_KEY", "line\nbreak"),
    ("AWS_SECRET_ACCESS_KEY", "nul\0"),
    ("AWS_SESSION_TOKEN", "to ken"),
    ("AWS_SESSION_TOKEN", "tökén"),
    ("AWS_REGION", "us east"),
    ("AWS_REGION", "https://store"),
    ("AWS_DEFAULT_REGION", "a/b"),
    ("AWS_ENDPOINT_URL_STS", "sts.example"),
    ("AWS_ENDPOINT_URL", "store:8333"),
    ("AWS_ENDPOINT_URL", "store"),
    ("AWS_ENDPOINT_URL", "127.0.0.1:9000"),
    ("AWS_ENDPOINT_URL", "//store"),
    ("AWS_ENDPOINT_URL", "http//store"),
    ("AWS_ENDPOINT_URL", "http:/store"),
    ("AWS_ENDPOINT_URL", "http:store"),
    ("AWS_ENDPOINT_URL", "https://"),
    ("AWS_ENDPOINT_URL", "https://:9000"),
    ("AWS_ENDPOINT_URL", "https://a b"),
    ("AWS_ENDPOINT_URL", "https://sto\nre"),
    ("AWS_ENDPOINT_URL", "https://[::1"),
    ("AWS_ENDPOINT_URL", "https://store:99999"),
    ("AWS_ENDPOINT_URL", "https://store:0"),
    ("AWS_ENDPOINT_URL", "https://1.2.3.4.5"),
    ("AWS_ENDPOINT_URL", "https://1.2.3.400"),
    ("AWS_ENDPOINT_URL", "https://store.0x7f"),
    ("AWS_ENDPOINT_URL", "https://[::g]"),
    ("AWS_ENDPOINT_URL", "https://[1.2.3.4]"),
    ("AWS_ENDPOINT_URL", "https://[2001:db8::1%eth0]"),
    ("AWS_ENDPOINT_URL", "https://[2001:db8::1%25eth0]"),
    ("AWS_ENDPOINT_URL", "https://a..b"),
    ("AWS_ENDPOINT_URL", "https://-store"),
    ("AWS_ENDPOINT_URL", "https://xn--0.example"),
    ("AWS_ENDPOINT_URL", f"https://{'a' * 64}.example"),
    ("AWS_ENDPOINT_URL", "https://store:port"),
    ("AWS_ENDPOINT_URL", "https://user:password@store"),
    ("AWS_ENDPOINT_URL", "https://store/?x=1"),
    ("AWS_ENDPOINT_URL", "https://store/#x"),
    ("AWS_ENDPOINT_URL", "s3://bucket"),
    ("AWS_ENDPOINT_URL", "ftp://store"),
    ("AWS_ENDPOINT_URL", "https://störe"),
    ("AWS_ENDPOINT_URL", '"https://store"'),
    ("AWS_ALLOW_HTTP", "maybe"),
    ("AWS_ALLOW_HTTP", "2"),
    ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "path"),
    ("AWS_SKIP_SIGNATURE", "x"),
    ("AWS_REQUEST_PAYER", "me"),
]


def _refused(values: dict[str, str], reason: Reason = Reason.INVALID_SECRET) -> str:
    with pytest.raises(Failure) as raised:
        parse_settings(values)
    assert raised.value.reason == reason
    return raised.value.message


def test_every_key_has_its_row() -> None:
    assert set(WRITE) == set(KEYS) - set(NETWORK_KEYS)
    assert {key for key, _ in WRONG} == set(WRITE)


@pytest.mark.parametrize("key", KEYS)
def test_an_absent_key_is_no_failure(key: str) -> None:
    del key
    assert parse_settings({}) == S3Settings()
    assert not parse_settings({}).is_signed


@pytest.mark.parametrize("value", ["", " ", "\n", "\t \n"])
@pytest.mark.parametrize("key", WRITE)
def test_an_empty_or_blank_value(key: str, value: str) -> None:
    message = _refused({**PAIR, key: value})
    assert message.startswith(f"{key} in the storage Secret is empty. Write ")
    assert WRITE[key] in message
    assert "remove the key" in message


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_value_of_the_wrong_form(key: str, value: str) -> None:
    message = _refused({**PAIR, key: value})
    assert message.startswith(f"{key} in the storage Secret ")
    assert "Write " in message
    secrets = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    assert key not in secrets or value not in message


@pytest.mark.parametrize("key", KEYS)
def test_a_binary_value(key: str, tmp_path: Path) -> None:
    (tmp_path / key).write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(Failure) as raised:
        read_secret(tmp_path, SCHEMES["s3"].secret_keys)
    assert raised.value.reason == Reason.INVALID_SECRET
    assert raised.value.message.startswith(f"{key} in the storage Secret is not text")
    assert "base64" in raised.value.message


def test_keys_that_set_nothing_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "keystore.p12").write_bytes(b"\xff\xfe")
    (tmp_path / "note").write_text("")
    (tmp_path / "AWS_REGION").write_text("eu-west-1\n")
    assert parse_settings(read_secret(tmp_path, SCHEMES["s3"].secret_keys)) == S3Settings(
        region="eu-west-1", unknown=("note",)
    )


def test_an_endpoint_without_a_scheme_is_written_out() -> None:
    message = _refused({"AWS_ENDPOINT_URL": "store:8333"})
    assert "https://store:8333, or http://store:8333 with AWS_ALLOW_HTTP=true" in message


def test_plain_http_is_allowed_by_a_key() -> None:
    url = {"AWS_ENDPOINT_URL": "http://store:8333"}
    assert "AWS_ALLOW_HTTP=true" in _refused(url, Reason.INSECURE_ENDPOINT)
    assert "http://store:8333" in _refused({**url, "AWS_ALLOW_HTTP": "false"}, Reason.INSECURE_ENDPOINT)
    assert parse_settings({**url, "AWS_ALLOW_HTTP": "True"}).endpoint == Endpoint("http://store:8333", "store", 8333)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("https://store", Endpoint("https://store", "store", 443)),
        ("https://store/", Endpoint("https://store", "store", 443)),
        ("HTTPS://store:9000/s3/", Endpoint("https://store:9000/s3", "store", 9000)),
        ("https://[::1]:9000", Endpoint("https://[::1]:9000", "::1", 9000)),
        ("https://10.0.0.1", Endpoint("https://10.0.0.1", "10.0.0.1", 443)),
        ("https://xn--bcher-kva.example.", Endpoint("https://xn--bcher-kva.example.", "xn--bcher-kva.example.", 443)),
    ],
)
def test_endpoints(text: str, endpoint: Endpoint) -> None:
    assert parse_settings({"AWS_ENDPOINT_URL": text}).endpoint == endpoint


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (("AWS_ACCESS_KEY_ID",), "AWS_SECRET_ACCESS_KEY"),
        (("AWS_SECRET_ACCESS_KEY",), "AWS_ACCESS_KEY_ID"),
        (("AWS_SESSION_TOKEN",), "AWS_ACCESS_KEY_ID"),
        (("AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"), "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_half_of_the_credentials(given: tuple[str, ...], missing: str) -> None:
    message = _refused(dict.fromkeys(given, "value"))
    assert message.startswith(f"{missing} in the storage Secret is absent")


def test_the_region_overrides_the_default_region() -> None:
    both = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-west-2"}
    assert parse_settings(both).region == "eu-west-1"
    assert parse_settings({"AWS_DEFAULT_REGION": "us-west-2"}).region == "us-west-2"


@pytest.mark.parametrize("uri", ["s3://bad bucket/m", "s3://user:password@bucket/m", "s3://bucket:9000/m", "s3://-/m"])
def test_a_bucket_that_cannot_be_one(uri: str) -> None:
    with pytest.raises(Failure) as raised:
        S3Source(uri, {})
    assert raised.value.reason == Reason.NOT_FOUND
    assert "s3://bucket/prefix" in raised.value.message


def test_a_folder_without_a_name_is_refused() -> None:
    with pytest.raises(Failure) as raised:
        S3Source("s3://bucket/a//b", {})
    assert raised.value.reason == Reason.UNSAFE_PATH


def test_a_uri_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Failure) as raised:
        open_source("https://[::1/model.onnx", Settings(root=tmp_path))
    assert raised.value.reason == Reason.UNSUPPORTED
