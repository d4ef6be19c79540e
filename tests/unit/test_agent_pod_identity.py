"""The variables of a pod's identity: each wrong value gets a message with the variable, and none is used as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from conch_agent.reasons import Failure, Reason
from conch_agent.sources import takes_identity
from conch_agent.sources.az_credentials import FederatedIdentity
from conch_agent.sources.az_settings import AUTHORITY
from conch_agent.sources.az_settings import parse_settings as parse_az
from conch_agent.sources.destinations import Destinations, RefusedAddressError
from conch_agent.sources.gs_token import find_server
from conch_agent.sources.s3 import S3Source
from conch_agent.sources.s3_pod_identity import EKS_ADDRESSES, find_pod_identity
from conch_agent.sources.s3_role import find_web_identity
from conch_agent.sources.s3_settings import build_host
from tests.support.azure import CLIENT, TENANT
from tests.support.examples import CLOUD

AWS = {"AWS_ROLE_ARN": "arn:aws:iam::1:role/models", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_REGION": "us-west-2"}
AZURE = {
    "AZURE_TENANT_ID": TENANT,
    "AZURE_CLIENT_ID": CLIENT,
    "AZURE_FEDERATED_TOKEN_FILE": "/token",
    "AZURE_AUTHORITY_HOST": "https://login.example/",
}
S3_URI, AZ_URI = "s3://models/m", "az://account/models/m"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in {**AWS, **AZURE}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def _identity() -> FederatedIdentity:
    credential = parse_az({}, "account").credential
    assert isinstance(credential, FederatedIdentity)
    return credential


def test_blanks_and_line_ends_round_values(environment: pytest.MonkeyPatch) -> None:
    plain = find_web_identity(AUTHORITY), _identity()
    for name, value in {**AWS, **AZURE}.items():
        environment.setenv(name, f" {value}\n")
    assert (find_web_identity(AUTHORITY), _identity()) == plain
    assert plain[1].authority.url == "https://login.example"
    environment.setenv("AZURE_AUTHORITY_HOST", " ")
    assert _identity().authority == AUTHORITY


@pytest.mark.parametrize("file", sorted(CLOUD.glob("*.yaml")), ids=lambda file: file.stem)
@pytest.mark.usefixtures("environment")
def test_the_model_of_an_example_is_read_with_the_identity(file: Path) -> None:
    objects = {each["kind"]: each for each in yaml.safe_load_all(file.read_text())}
    predictor, secret = objects["InferenceService"]["spec"]["predictor"], objects.get("Secret", {})
    assert predictor["pod"]["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    assert takes_identity(predictor["model"]["storageUri"], secret.get("stringData", {}))


@pytest.mark.parametrize("value", ["", " \n"])
@pytest.mark.parametrize(
    ("name", "uri"),
    [(name, S3_URI) for name in list(AWS)[:2]] + [(name, AZ_URI) for name in list(AZURE)[:3]],
)
def test_an_identity_of_some_variables_is_none(
    name: str, uri: str, value: str, environment: pytest.MonkeyPatch
) -> None:
    assert takes_identity(uri, {})
    environment.setenv(name, value)
    assert not takes_identity(uri, {})
    assert find_web_identity(AUTHORITY) is None if uri == S3_URI else parse_az({}, "account").credential is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AWS_ROLE_ARN", "models", "is 'models', which is no ARN of a role. Correct the annotation eks.amazonaws.com"),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/a b", "which is no ARN"),
        ("AWS_ROLE_ARN", "arn:" + "a" * 3000, "which is no ARN"),
        ("AWS_REGION", "evil.example/", "is 'evil.example/', which is not a region"),
        (
            "AZURE_TENANT_ID",
            "../../other",
            "is '../../other', which is neither an id nor a domain. Correct azure.workl",
        ),
        ("AZURE_CLIENT_ID", "a&client_id=b", "which is no GUID"),
        ("AZURE_AUTHORITY_HOST", "http://login.example", "is plain HTTP"),
        ("AZURE_AUTHORITY_HOST", "https://user@login.example", "holds a user"),
    ],
)
def test_a_wrong_value(name: str, value: str, words: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv(name, value)
    with pytest.raises(Failure) as raised:
        S3Source(S3_URI, {}) if name.startswith("AWS") else parse_az({}, "account")
    assert raised.value.reason == Reason.ACCESS_DENIED
    assert raised.value.message.startswith(f"{name} in the environment of the pod ")
    assert words in raised.value.message
    assert raised.value.message.endswith("and start the pod anew.")


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"),
        ("cn-northwest-1", "sts.cn-northwest-1.amazonaws.com.cn"),
        ("eusc-de-east-1", "sts.eusc-de-east-1.amazonaws.eu"),
        ("ca-central-1", "sts.ca-central-1.amazonaws.com"),
    ],
)
def test_the_token_service_of_a_partition(region: str, host: str) -> None:
    assert build_host("sts", region) == host


@pytest.mark.parametrize("url", ["http://169.254.170.23/v1/credentials", "http://[fd00:ec2::23]/v1/credentials?a=b"])
def test_the_agent_of_eks(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/token")
    pod = find_pod_identity()
    assert pod
    assert f"{pod.agent.url}{pod.path}" == url
    assert takes_identity(S3_URI, {})
    assert takes_identity(S3_URI, {"AWS_ENDPOINT_URL": "https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com"})
    for other in ("https://store.example", "https://amazonaws.com.example", "https://notamazonaws.com"):
        assert not takes_identity(S3_URI, {"AWS_ENDPOINT_URL": other})


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://169.254.170.2/v2/credentials",
        "http://attacker.example/v1/credentials",
        "http://user@169.254.170.23/v1/credentials",
        "https://169.254.170.23/v1/credentials",
        "http://[::1/v1",
        "169.254.170.23",
        "http://169.254.170.23:0/v1/credentials",
        "http://169.254.170.23:99999/v1/credentials",
        "http://169.254. 170.23/v1/credentials",
        "http://169.254.170.23/v1/cred\tentials",
        "http://169.254.170.23/v1/credentials?a=b c",
        "http://169.254.170.23/v1/credentials#a",
        "http://[fd00:ec2::23%25eth0]/v1/credentials",
        "http://[::1%lo]/v1/credentials",
        "http://127.1/v1/credentials",
        "http://169.254.170.23\\@127.0.0.1/v1",
    ],
)
def test_another_server_is_not_the_agent_of_eks(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/token")
    with pytest.raises(Failure, match=r"AWS_CONTAINER_CREDENTIALS_FULL_URI in the environment of the pod is .*Correct"):
        S3Source(S3_URI, {})


@pytest.mark.parametrize("host", ["169.254.169.254", "169.254.169.254:80", "[fd20:ce::254]", "127.0.0.1:8080"])
def test_the_metadata_server_of_gke(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", host)
    assert find_server().url == f"http://{host}"


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254/computeMetadata",
        "169.254.169.254/",
        "169.254.169.254?a",
        "169.254.169.254:0",
        "169.254.169.253",
        "user@169.254.169.254",
        "[fd20:ce::254%25eth0]",
        "http://169.254.169.254",
        "169.254. 169.254",
        "metadata.google.internal",
    ],
)
def test_another_host_is_not_the_metadata_server_of_gke(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", host)
    with pytest.raises(Failure, match=r"GCE_METADATA_HOST in the environment of the pod .*\. Remove GCE_METADATA_HOST"):
        find_server()


@pytest.mark.parametrize("host", ["10.96.0.1\n", " [FD00::1]", "kubernetes.example "])
def test_no_server_leads_to_the_api_server_of_the_environment(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    with pytest.raises(RefusedAddressError, match="the address of the API server"):
        Destinations("store.example").check(host.strip(" []\n").lower(), ())


def test_the_agent_of_eks_alone_may_have_its_link_local_address() -> None:
    agent = "169.254.170.23"
    Destinations(agent, EKS_ADDRESSES).check(agent, ())
    for destinations, host in ((Destinations(agent), agent), (Destinations("store.example", EKS_ADDRESSES), agent)):
        with pytest.raises(RefusedAddressError):
            destinations.check(host, ())
    with pytest.raises(RefusedAddressError):
        Destinations(agent, EKS_ADDRESSES).check("169.254.169.254", ())


def test_the_identity_of_gke_is_used_where_the_secret_requests_it() -> None:
    assert takes_identity("gs://models/m", {"GOOGLE_POD_IDENTITY": "true"})
    assert not takes_identity("gs://models/m", {"GOOGLE_POD_IDENTITY": "false"})
    assert not takes_identity("gs://models/m", {})
