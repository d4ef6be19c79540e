"""The storage Secret of gs://: each wrong value of each key gets a message with the key and what to write."""

from __future__ import annotations

import base64
import json

import pytest

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.gs import GsSource
from conch_agent.sources.gs_settings import KEYS, GsSettings, parse_settings
from conch_agent.sources.secret_settings import Endpoint
from tests.support.google import Account

ACCOUNT = Account()
KEY = ACCOUNT.write()
PEM = str(ACCOUNT.fields["private_key"])
WRONG_KEYS = [
    ("reader.json", "is no JSON, but one word", "not its path"),
    ("/var/secrets/key.json", "is no JSON, but one word", "not its path"),
    (PEM, "is no JSON", "JSON key of a service account"),
    (KEY[:-1], "is no JSON", "JSON key of a service account"),
    ('{"a":' * 50_000, "is no JSON", "JSON key of a service account"),
    ("[]", "is JSON, but no object", "JSON key of a service account"),
    ("null", "is JSON, but no object", "JSON key of a service account"),
    (base64.b64encode(KEY.encode()).decode(), "is base64 of JSON, so it was encoded twice", "stringData"),
    (base64.encodebytes(KEY.encode()).decode(), "is base64 of JSON, so it was encoded twice", "stringData"),
    ("{}", "has no type, and 'service_account' was expected", "JSON key of a service account"),
    (ACCOUNT.write(type="authorized_user"), "has the type 'authorized_user'", "gcloud iam service-accounts keys"),
    (ACCOUNT.write(type="external_account"), "has the type 'external_account'", "gcloud iam service-accounts keys"),
    (ACCOUNT.write(type=1), "has no type", "JSON key of a service account"),
    (ACCOUNT.write(client_email=None), "has no client_email", "JSON key of a service account"),
    (ACCOUNT.write(client_email=" "), "has no client_email", "JSON key of a service account"),
    (ACCOUNT.write(private_key_id=7), "has no private_key_id", "JSON key of a service account"),
    (ACCOUNT.write(private_key=None), "has no private_key", "JSON key of a service account"),
    (ACCOUNT.write(private_key="x"), "has a private_key that is no PEM block", "JSON key of a service account"),
    (ACCOUNT.write(private_key=PEM.replace("PRIVATE", "PUBLIC")), "has a private_key that is no PEM block", "JSON"),
    (ACCOUNT.write(private_key=PEM.replace("\n", "\\n")), r"is the two letters \n", r"a line break is \n"),
    (ACCOUNT.write(gcs_base_url="http://127.0.0.1:1"), "has the field gcs_base_url", "GOOGLE_BASE_URL"),
    (ACCOUNT.write(disable_oauth=True), "has the field disable_oauth", "Remove GOOGLE_SERVICE_ACCOUNT_KEY"),
    (ACCOUNT.write(universe_domain="cloud.example"), "is of the universe_domain 'cloud.example'", "googleapis.com"),
]
WRONG = [
    ("GOOGLE_BASE_URL", "store:4443"),
    ("GOOGLE_BASE_URL", "https://user:password@store"),
    ("GOOGLE_BASE_URL", "gs://bucket"),
    ("GOOGLE_ALLOW_HTTP", "maybe"),
    ("ca.crt", "/etc/ssl/ca.crt"),
]


def _refused(values: dict[str, str], reason: Reason = Reason.INVALID_SECRET) -> str:
    with pytest.raises(Failure) as raised:
        GsSource("gs://b/m", values)
    assert raised.value.reason == reason
    return raised.value.message


@pytest.mark.parametrize(("value", "what", "remedy"), WRONG_KEYS, ids=[what for _, what, _ in WRONG_KEYS])
def test_a_key_of_a_service_account_that_is_none(value: str, what: str, remedy: str) -> None:
    message = _refused({"GOOGLE_SERVICE_ACCOUNT_KEY": value})
    assert message.startswith("GOOGLE_SERVICE_ACCOUNT_KEY in the storage Secret ")
    assert what in message
    assert remedy in message
    assert PEM.splitlines()[1] not in message


@pytest.mark.parametrize("body", ["MAA=", "!!!", PEM.splitlines()[1]], ids=["no key", "no base64", "a part of a key"])
def test_a_private_key_that_the_client_cannot_read(body: str) -> None:
    pem = f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"
    message = _refused({"GOOGLE_SERVICE_ACCOUNT_KEY": ACCOUNT.write(private_key=pem)})
    assert "has a private_key that is no" in message
    assert body not in message


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_value_of_the_wrong_form(key: str, value: str) -> None:
    message = _refused({key: value})
    assert message.startswith(f"{key} in the storage Secret ")
    assert "Write " in message


@pytest.mark.parametrize("key", KEYS)
def test_an_empty_value(key: str) -> None:
    message = _refused({key: " \n"})
    assert message.startswith(f"{key} in the storage Secret is empty. Write ")
    assert "remove the key" in message


def test_settings() -> None:
    assert parse_settings({"other": "x"}) == GsSettings(unknown=("other",))
    settings = parse_settings({"GOOGLE_SERVICE_ACCOUNT_KEY": f"\n{ACCOUNT.write(universe_domain=None)}\n"})
    assert settings.account_key
    fields = ("client_email", "private_key_id", "private_key")
    assert json.loads(settings.account_key.to_json()) == {name: ACCOUNT.fields[name] for name in fields}


def test_plain_http_is_allowed_by_a_key() -> None:
    url = {"GOOGLE_BASE_URL": "http://store:4443"}
    assert "GOOGLE_ALLOW_HTTP=true" in _refused(url, Reason.INSECURE_ENDPOINT)
    assert "http://store:4443 with GOOGLE_ALLOW_HTTP=true" in _refused({"GOOGLE_BASE_URL": "store:4443"})
    settings = parse_settings({**url, "GOOGLE_ALLOW_HTTP": "true"})
    assert settings.endpoint == Endpoint("http://store:4443", "store", 4443)


@pytest.mark.parametrize("uri", ["gs:///m", "gs://bad bucket/m", "gs://user:password@bucket/m", "gs://bucket:443/m"])
def test_a_bucket_that_cannot_be_one(uri: str) -> None:
    with pytest.raises(Failure) as raised:
        GsSource(uri, {})
    assert raised.value.reason == Reason.NOT_FOUND
    assert "gs://bucket/prefix" in raised.value.message
