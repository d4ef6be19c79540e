"""Certificates and proxies in the storage Secret, and proxies in the container's environment."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
from pip._vendor.requests.utils import get_environ_proxies
from yarl import URL

from conch_agent.environments import parse_index
from conch_agent.reasons import Failure, Reason
from conch_agent.sources.network import NETWORK_KEYS, NetworkSettings
from conch_agent.sources.proxies import parse_proxy
from conch_agent.sources.secret_settings import parse_values

WRITE = {
    "HTTPS_PROXY": "http://proxy.example:3128",
    "HTTP_PROXY": "http://proxy.example:3128",
    "NO_PROXY": ".svc,10.0.0.0/8",
    "ca.crt": "PEM certificates",
}
WRONG = [
    (
        "HTTPS_PROXY",
        "socks5://user:hunter2@proxy:1080",
        "is a proxy with 'socks5://', and Conch takes proxies for HTTP",
    ),
    ("HTTPS_PROXY", "http://", "is no URL of a proxy"),
    ("HTTPS_PROXY", "http://user:hunter2@", "is no URL of a proxy"),
    ("HTTPS_PROXY", "http://user:hunter2@proxy:port", "is no URL of a proxy"),
    ("HTTPS_PROXY", "http://user:hunter2:proxy:3128", "is no URL of a proxy"),
    ("HTTPS_PROXY", "http://user:hunter2", "is no URL of a proxy"),
    ("HTTPS_PROXY", "user:hunter2://a@proxy/path", "has a path"),
    ("HTTPS_PROXY", "http://user:hunter2@proxy/path", "has a path, and a proxy has none"),
    ("HTTPS_PROXY", "http://user:hunter2%0a@proxy", "has a control character in its user or password"),
    ("HTTPS_PROXY", "http://us%3Aer:hunter2@proxy", "has a colon in its user"),
    ("HTTPS_PROXY", "http://169.254.169.254:80", "link-local address or a cloud's metadata server"),
    ("HTTP_PROXY", "http://a b:3128", "is no URL of a proxy"),
    ("HTTP_PROXY", "http://proxy:0", "is no URL of a proxy"),
    ("NO_PROXY", ".svc, 10.0.0.0/99", "has '10.0.0.0/99', which is no host, domain or network"),
    ("NO_PROXY", "http://user:hunter2@store", "has 'store', which is no host, domain or network"),
    ("NO_PROXY", f"store:{'9' * 5000}", "which is no host, domain or network"),
    ("NO_PROXY", "http://store", "has 'http://store', which is no host, domain or network"),
    ("ca.crt", "text", "holds no PEM block and no certificate"),
    ("ca.crt", "/etc/ssl/ca.crt", "holds no PEM block and no certificate"),
    (
        "ca.crt",
        "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----",
        "holds a private key and no certificate",
    ),
    ("ca.crt", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----", "(number 1 of 1) that cannot be read"),
    ("ca.crt", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----", "(number 1 of 1) that cannot be read"),
]


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NETWORK_KEYS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def parse(values: dict[str, str]) -> NetworkSettings:
    return NetworkSettings(**parse_values(values, NETWORK_KEYS))


def test_every_key_has_its_row() -> None:
    assert set(WRITE) == {key for key, *_ in WRONG} == set(NETWORK_KEYS)


@pytest.mark.parametrize(("key", "value", "what"), [*WRONG, *((key, " \n", "is empty") for key in WRITE)])
def test_a_value_of_the_wrong_form(key: str, value: str, what: str) -> None:
    with pytest.raises(Failure) as raised:
        parse({key: value})
    assert raised.value.reason == Reason.INVALID_SECRET
    message = raised.value.message
    assert message.startswith(f"{key} in the storage Secret ")
    assert what in message
    assert WRITE[key] in message
    assert "hunter2" not in message


def test_a_bundle_with_comments_is_read(tmp_path: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=store"]
    subprocess.run([*command, "-keyout", tmp_path / "key", "-out", tmp_path / "crt"], capture_output=True, check=True)
    certificate = (tmp_path / "crt").read_text()
    bundle = parse({"ca.crt": f"# Türk Trust\n{certificate}\n# another\n{certificate}"}).authorities
    assert bundle == certificate * 2


@pytest.mark.parametrize(
    ("text", "url", "login"),
    [
        ("proxy", "http://proxy", ("", "")),
        ("proxy:3128", "http://proxy:3128", ("", "")),
        ("HTTP://proxy:3128/", "http://proxy:3128", ("", "")),
        ("https://proxy", "https://proxy", ("", "")),
        ("http://[::1]:3128", "http://[::1]:3128", ("", "")),
        ("http://user@proxy", "http://proxy", ("user", "")),
        ("user:a:b@c@proxy:3128", "http://proxy:3128", ("user", "a:b@c")),
        ("http://user:a://b@proxy", "http://proxy", ("user", "a://b")),
        ("user:a://b@proxy", "http://proxy", ("user", "a://b")),
        ("http://user:%C3%A4%2F@proxy", "http://proxy", ("user", "ä/")),
    ],
)
def test_proxies(text: str, url: str, login: tuple[str, str]) -> None:
    proxy = parse_proxy("HTTP_PROXY", text)
    assert (proxy.url, (proxy.user, proxy.password)) == (url, login)
    assert not login[1] or login[1] not in repr(proxy)


@pytest.mark.parametrize(
    ("text", "direct", "proxied"),
    [
        ("*", "https://store https://10.0.0.1", ""),
        ("example.com", "https://example.com https://EXAMPLE.com. https://a.example.com", "https://notexample.com"),
        (".example.com", "https://example.com https://a.example.com", "https://notexample.com"),
        ("*.svc, localhost", "https://a.b.svc https://localhost:8080", "https://svc.example https://local"),
        ("store:8443", "https://store:8443", "https://store"),
        ("store:443", "https://store", "https://store:8443 http://store"),
        ("10.0.0.0/8 fd00::/8", "https://10.1.2.3:9000 https://[fd00::1]", "https://11.0.0.1 https://[fe00::1]"),
        ("10.0.0.0/8", "https://[::ffff:10.1.2.3]", "https://[::ffff:11.1.2.3]"),
        ("xn--mnchen-3ya.example", "https://münchen.example https://a.xn--mnchen-3ya.example", "https://store"),
        ("10.1.2.3,::1", "https://10.1.2.3 https://[::1]", "https://10.1.2.30"),
        ("10.1.2.3:80,[::1]:80", "http://10.1.2.3 http://[::1]", "https://10.1.2.3 https://[::1]"),
    ],
)
def test_servers_that_are_reached_directly(text: str, direct: str, proxied: str) -> None:
    proxies = parse({"HTTP_PROXY": "proxy", "HTTPS_PROXY": "proxy", "NO_PROXY": text}).find_proxies()
    assert [url for url in direct.split() if proxies.find(URL(url))] == []
    assert [url for url in proxied.split() if not proxies.find(URL(url))] == []


def test_the_secret_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://environment:3128")
    monkeypatch.setenv("http_proxy", "http://small:3128")
    monkeypatch.setenv("no_proxy", ".svc")
    proxies = parse({"HTTPS_PROXY": "http://secret:3128"}).find_proxies()
    assert (proxies.https and proxies.https.host, proxies.http and proxies.http.host) == ("secret", "small")
    assert not proxies.find(URL("https://store.a.svc"))
    assert not parse({"NO_PROXY": "*"}).find_proxies().find(URL("https://store")), "as a source turns them off"
    assert parse({"NO_PROXY": ","}).find_proxies().direct == (), "the Secret has the key, with no server"


def test_an_invalid_variable_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://user:hunter2@proxy")
    with pytest.raises(Failure) as raised:
        parse({}).find_proxies()
    assert raised.value.message == (
        "HTTP_PROXY in the environment of the agent's container is a proxy with 'socks5://', and Conch takes proxies"
        " for HTTP. Write a URL such as http://proxy.example:3128."
    )
    assert parse({"HTTP_PROXY": "proxy"}).find_proxies().http, "the Secret is used in its place"
    assert not parse({"NO_PROXY": "*"}).find_proxies().http, "the Secret turns it off"


def test_pip_gets_the_same_proxies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("https_proxy", "http://environment:3128")
    index = parse_index({"NO_PROXY": ".svc", "PIP_INDEX_URL": "https://index/simple"})
    assert index.write_variables(tmp_path) == {
        "HTTPS_PROXY": "http://environment:3128",
        "NO_PROXY": ".svc",
        "PIP_INDEX_URL": "https://index/simple",
    }
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["https://host/simple", "http://user:p%40ss@[::1]:8080/a//b/", "https://me@host"])
def test_an_index(url: str) -> None:
    assert parse_index({"PIP_INDEX_URL": url}).url == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host", "is no URL"),
        ("https://", "is no URL"),
        ("https://user:hunter2@", "is no URL"),
        ("https://user:hunter2@host:0/simple", "is no URL"),
        ("https://user:hunter2@host:port/simple", "is no URL"),
        ("https://a..b/simple", "is no URL"),
        ("https://[::1%25lo]/simple", "is no URL"),
        ("https://host/a b", "is no URL"),
        (
            "http://169.254.169.254/simple",
            "is refused: 169.254.169.254 is a link-local address or a cloud's metadata server",
        ),
        (
            "http://user:hunter2@[fd00:ec2::254]/",
            "is refused: fd00:ec2::254 is a link-local address or a cloud's metadata",
        ),
        ("http://2852039166/simple", "is no URL"),
    ],
)
def test_an_index_that_is_none(url: str, words: str) -> None:
    with pytest.raises(Failure) as raised:
        parse_index({"PIP_INDEX_URL": url})
    assert raised.value.reason == Reason.INVALID_SECRET
    assert raised.value.message.startswith("PIP_INDEX_URL in the storage Secret ")
    assert words in raised.value.message
    assert "hunter2" not in raised.value.message


@pytest.mark.parametrize("text", ["user:hunter2/@proxy", "http://user:hunter2#@proxy", "HTTP://user:hunter2?%@proxy"])
def test_pip_gets_a_password_that_it_cannot_take_for_a_host(text: str, tmp_path: Path) -> None:
    """Its errors would show it."""
    index = parse_index({"HTTPS_PROXY": text})
    value = index.write_variables(tmp_path)["HTTPS_PROXY"]
    password = text.partition("user:")[2].partition("@")[0]
    assert value == f"http://user:{quote(password, safe='')}@proxy"
    assert parse_proxy("HTTPS_PROXY", value) == parse_proxy("HTTPS_PROXY", text)
    assert "hunter2" not in repr(index)


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("*", "https://store http://10.0.0.1"),
        (
            "*.svc localhost\n.a.example,b.example",
            "https://x.svc http://localhost https://a.example https://c.a.example",
        ),
        ("b.example", "https://b.example https://c.b.example https://cb.example"),
        ("store:8443", "https://store:8443 https://store https://store:8444"),
        ("10.0.0.0/8  10.1.2.3/32, ::1", "https://10.1.2.3 https://11.1.2.3 https://[::1] https://[::2]"),
    ],
)
def test_pip_reaches_the_same_servers_directly(
    text: str, urls: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxies = {"HTTP_PROXY": "proxy", "HTTPS_PROXY": "proxy", "NO_PROXY": text}
    for name, value in parse_index(proxies).write_variables(tmp_path).items():
        monkeypatch.setenv(name, value)
    found = parse(proxies).find_proxies()
    for url in urls.split():
        assert bool(get_environ_proxies(url)) is bool(found.find(URL(url))), url
