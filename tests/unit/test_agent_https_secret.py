"""The settings of a web server in the storage Secret."""

from __future__ import annotations

import pytest

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.https_settings import describe_credentials, parse_settings

LOGIN = {"HTTPS_AUTHORIZATION": "Bearer secret", "HTTPS_HOST": "models.example:8443"}


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        (
            {"HTTPS_AUTHORIZATION": "Bearer secret"},
            "HTTPS_HOST in the storage Secret is absent while HTTPS_AUTHORIZATION",
        ),
        ({**LOGIN, "HTTPS_AUTHORIZATION": "a\nHost: secret"}, "HTTPS_AUTHORIZATION in the storage Secret holds a line"),
        ({**LOGIN, "HTTPS_HOST": "https://models.example"}, "Write the host of storageUri"),
        ({**LOGIN, "HTTPS_HOST": "models.example/m"}, "is 'models.example/m', which is more than a host"),
        ({**LOGIN, "HTTPS_HOST": "a b"}, "which holds a blank"),
        ({**LOGIN, "HTTPS_HOST": "user@models.example"}, "which holds a user"),
        ({**LOGIN, "HTTPS_HOST": " "}, "HTTPS_HOST in the storage Secret is empty"),
    ],
)
def test_what_is_no_login(secret: dict[str, str], message: str) -> None:
    with pytest.raises(Failure) as raised:
        parse_settings(secret)
    assert raised.value.reason == Reason.INVALID_SECRET
    assert message in raised.value.message
    assert "secret" not in raised.value.message.replace("storage Secret", "")


@pytest.mark.parametrize(
    ("uri", "is_sent"),
    [
        ("https://models.example:8443/m", True),
        ("https://MODELS.example:8443/m", True),
        ("https://models.example/m", False),
        ("http://models.example:8443/m", False),
        ("https://a.models.example:8443/m", False),
        ("https://models.example.attacker.example:8443/m", False),
        ("https://attacker.example/models.example:8443/m", False),
        ("https://models.example:99999/m", False),
    ],
)
def test_a_login_is_for_its_host_alone(uri: str, is_sent: bool) -> None:
    settings = parse_settings(LOGIN)
    assert settings.find_credentials(uri) == ({"Authorization": "Bearer secret"} if is_sent else {})
    assert ("was not sent: it is for https://models.example:8443" in describe_credentials(settings, uri)) is not is_sent
    assert parse_settings({}).find_credentials(uri) == {}


@pytest.mark.parametrize(
    ("host", "uri"),
    [
        ("xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example/m"),
        ("xn--mnchen-3ya.example", "https://münchen.example/m"),
        ("[0:0::1]:8443", "https://[::1]:8443/m"),
        ("models.example", "https://models.example:443/m"),
        ("models.example:443", "https://models.example/m"),
    ],
)
def test_a_host_has_several_forms(host: str, uri: str) -> None:
    assert parse_settings({**LOGIN, "HTTPS_HOST": host}).find_credentials(uri)


@pytest.mark.parametrize(
    "host", ["models.example@attacker", "models.example\\@attacker", "models.example%2eattacker", "models.example%00"]
)
def test_another_host_that_begins_with_it_gets_no_login(host: str) -> None:
    assert parse_settings({**LOGIN, "HTTPS_HOST": "models.example"}).find_credentials(f"https://{host}/m") == {}
