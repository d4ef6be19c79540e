"""The storage Secret of az://: each wrong value of each key gets a message with the key and what to write."""

from __future__ import annotations

import base64

import pytest

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.az import AzSource
from conch_agent.sources.az_credentials import AccountKey, Sas, ServicePrincipal
from conch_agent.sources.az_settings import AUTHORITY, KEYS, AzSettings, parse_settings
from conch_agent.sources.secret_settings import Endpoint
from conch_contract.schemes import SCHEMES
from tests.support.azure import CLIENT, CLIENT_SECRET, KEY, TENANT, make_account_sas, make_container_sas

SAS = make_container_sas("models")
PRINCIPAL = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT, "AZURE_CLIENT_SECRET": CLIENT_SECRET}
CONNECTION = f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={KEY};EndpointSuffix=core.windows.net"
WRONG = [
    ("AZURE_STORAGE_ACCOUNT_KEY", "no base64!", "is no base64", "az storage account keys list"),
    ("AZURE_STORAGE_ACCOUNT_KEY", CONNECTION, "is a connection string", "what follows AccountKey="),
    ("AZURE_STORAGE_ACCOUNT_KEY", SAS, "is a SAS token", "AZURE_STORAGE_SAS_TOKEN"),
    ("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(KEY.encode()).decode(), "was encoded twice", "stringData"),
    ("AZURE_STORAGE_ACCESS_KEY", KEY[:-1], "is no base64", "az storage account keys list"),
    ("AZURE_STORAGE_SAS_TOKEN", f"https://a.blob.core.windows.net/models?{SAS}", "is a URL", "question mark"),
    ("AZURE_STORAGE_SAS_TOKEN", SAS.replace("&", "&amp;"), "has &amp; in place of &", "Write &"),
    ("AZURE_STORAGE_SAS_TOKEN", SAS.partition("&sig=")[0], "has no signature (sig=)", "generate-sas"),
    ("AZURE_STORAGE_SAS_TOKEN", "token", "has no signature (sig=)", "generate-sas"),
    ("AZURE_STORAGE_SAS_TOKEN", f"{SAS} {SAS}", "holds a blank", "generate-sas"),
    ("AZURE_STORAGE_SAS_TOKEN", "sv=%ff&sig=%ff", "is no SAS token", "generate-sas"),
    ("AZURE_STORAGE_SAS_TOKEN", make_container_sas("models", "r"), "to read (r) and to list (l)", "--permissions rl"),
    ("AZURE_STORAGE_SAS_TOKEN", make_account_sas("l"), "to read (r) and to list (l)", "--permissions rl"),
    ("AZURE_STORAGE_SAS_TOKEN", make_account_sas(services="q"), "is not of the blob service", "--services b"),
    ("AZURE_STORAGE_SAS_TOKEN", make_account_sas(types="o"), "containers (c) and objects", "--resource-types co"),
    ("AZURE_STORAGE_SAS_KEY", SAS.replace("sr=c", "sr=b"), "is of one blob", "of a container"),
    ("AZURE_TENANT_ID", "my tenant", "is 'my tenant', which is neither an id nor a domain", "id of the tenant"),
    ("AZURE_TENANT_ID", "../x", "is neither an id nor a domain", "id of the tenant"),
    ("AZURE_CLIENT_ID", "reader", "is 'reader', which is no GUID", "application (client) id"),
    ("AZURE_CLIENT_SECRET", CLIENT, "is a GUID, as the id of a client secret is", "value of a client secret"),
    ("AZURE_CLIENT_SECRET", "two\nlines", "holds a line break", "value of a client secret"),
    ("AZURE_AUTHORITY_HOST", "http://login.example", "is plain HTTP", "https://login.microsoftonline.com"),
    ("AZURE_AUTHORITY_HOST", "https://login.example/?x", "holds '?'", "https://login.microsoftonline.com"),
    ("AZURE_STORAGE_ACCOUNT_NAME", "other", "is 'other', and storageUri has the account 'account'", "az://account/"),
    ("AZURE_STORAGE_ENDPOINT", "store:10000", "does not begin with http", "http://store:10000 with AZURE_ALLOW_HTTP"),
    ("AZURE_STORAGE_ENDPOINT", "https://user:password@store", "holds a user", "https://account.blob"),
    (
        *("AZURE_STORAGE_ENDPOINT", "https://account.dfs.core.windows.net", "the address of Data Lake Storage"),
        "Write https://account.blob.core.windows.net",
    ),
    ("AZURE_ALLOW_HTTP", "maybe", "is 'maybe', which is neither true nor false", "true or false"),
    ("ca.crt", "/etc/ssl/ca.crt", "holds no PEM block", "PEM certificates"),
]


def _refused(values: dict[str, str], reason: Reason = Reason.INVALID_SECRET) -> str:
    with pytest.raises(Failure) as raised:
        AzSource("az://account/models/m", values)
    assert raised.value.reason == reason
    return raised.value.message


@pytest.mark.parametrize(
    ("key", "value", "what", "remedy"), WRONG, ids=[f"{number}-{key}" for number, (key, *_) in enumerate(WRONG)]
)
def test_a_value_of_the_wrong_form(key: str, value: str, what: str, remedy: str) -> None:
    message = _refused(PRINCIPAL | {key: value} if key in PRINCIPAL else {key: value})
    assert message.startswith(f"{key} in the storage Secret ")
    assert what in message.replace("which is neither", "is neither") or what in message
    assert remedy in message
    assert "sig=" not in message.replace("(sig=)", "")
    assert KEY not in message


@pytest.mark.parametrize("key", KEYS)
def test_an_empty_value(key: str) -> None:
    message = _refused({key: " \n"})
    assert message.startswith(f"{key} in the storage Secret is empty. Write ")
    assert "remove the key" in message


def test_the_reference_has_the_keys() -> None:
    assert {key.name for key in SCHEMES["az"].secret_keys} == set(KEYS)


def test_settings() -> None:
    assert _parse({"other": "x"}) == AzSettings(unknown=("other",))
    for name in ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY"):
        assert _parse({name: f"{KEY}\n", "AZURE_STORAGE_ACCOUNT_NAME": "account"}) == AzSettings(AccountKey(KEY))
    for name in ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"):
        assert _parse({name: f"?{SAS}"}) == AzSettings(Sas(SAS))
    stored = SAS.replace("&sp=rl", "&si=policy")  # the permissions are those of a policy of the container
    assert _parse({"AZURE_STORAGE_SAS_TOKEN": stored}) == AzSettings(Sas(stored))
    principal = ServicePrincipal(TENANT, CLIENT, CLIENT_SECRET, AUTHORITY)
    assert _parse(PRINCIPAL) == AzSettings(principal)
    china = Endpoint("https://login.chinacloudapi.cn", "login.chinacloudapi.cn", 443)
    for text in ("login.chinacloudapi.cn", "https://login.chinacloudapi.cn/"):
        found = _parse(PRINCIPAL | {"AZURE_AUTHORITY_HOST": text}).credential
        assert found == ServicePrincipal(TENANT, CLIENT, CLIENT_SECRET, china)
    assert _parse({"AZURE_AUTHORITY_HOST": "login.example"}) == AzSettings()


def _parse(secret: dict[str, str]) -> AzSettings:
    return parse_settings(secret, "account")


@pytest.mark.parametrize("absent", PRINCIPAL)
def test_an_incomplete_service_principal(absent: str) -> None:
    message = _refused({key: value for key, value in PRINCIPAL.items() if key != absent})
    assert message.startswith(f"{absent} in the storage Secret is absent while ")
    assert ", or remove the others." in message


def test_several_credentials() -> None:
    message = _refused(PRINCIPAL | {"AZURE_STORAGE_SAS_TOKEN": SAS})
    assert message.startswith("AZURE_STORAGE_SAS_TOKEN in the storage Secret is beside AZURE_TENANT_ID. Keep one kind")
    message = _refused({"AZURE_STORAGE_SAS_TOKEN": SAS, "AZURE_STORAGE_ACCOUNT_KEY": KEY})
    assert message.startswith("AZURE_STORAGE_ACCOUNT_KEY in the storage Secret is beside AZURE_STORAGE_SAS_TOKEN.")


def test_plain_http_is_allowed_by_a_key() -> None:
    url = {"AZURE_STORAGE_ENDPOINT": "http://store:10000/account"}
    assert "AZURE_ALLOW_HTTP=true" in _refused(url, Reason.INSECURE_ENDPOINT)
    settings = _parse({**url, "AZURE_ALLOW_HTTP": "true"})
    assert settings.endpoint == Endpoint("http://store:10000/account", "store", 10000)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("az:///models", "names no storage account"),
        ("az://account", "names no container"),
        ("az://account/", "names no container"),
        ("az://my-container/m", "'my-container' cannot be a storage account's name"),
        ("az://account.blob.core.windows.net/models", "cannot be a storage account's name"),
        ("az://models@account/m", "cannot be a storage account's name"),
        ("az://account/Models/m", "'Models' cannot be a container's name"),
    ],
)
def test_a_uri_without_an_account_or_a_container(uri: str, words: str) -> None:
    with pytest.raises(Failure) as raised:
        AzSource(uri, {})
    assert raised.value.reason == Reason.NOT_FOUND
    assert words in raised.value.message
    assert "rite az://account/container/prefix" in raised.value.message
