"""A model in a store that the role of the pod's service account may read: no key is in a Secret."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.identities import EksAgent, Issuer
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_lifecycle import build_double, build_python
from tests.support.ports import free_port

ROLE, ACCOUNT = "arn:aws:iam::role/models", "team:serving"


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    issuer = Issuer(tmp_path_factory.mktemp("issuer"))
    yield issuer
    issuer.server.kill()


@pytest.fixture(scope="module")
def guarded(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store whose token service knows the role, with a model in it, and one that the role may not read."""
    store = Store(tmp_path_factory.mktemp("store"), roles=issuer.build_roles(ROLE, ACCOUNT, "models"))
    store.put("models", build_double("double", 2))
    store.put("others", build_double("double", 2))
    yield store
    store.process.kill()


def prepare(pod: Pod, store: Store, token: str, **secret: str) -> dict[str, str]:
    """Have the addresses of the store in the storage Secret; return the variables that EKS adds to the container."""
    addresses = {"AWS_ENDPOINT_URL": store.endpoint, "AWS_ENDPOINT_URL_STS": store.endpoint, "AWS_ALLOW_HTTP": "true"}
    pod.write_secret({**addresses, **secret})
    file = pod.root / "token"
    file.write_text(token)
    return {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(file), "AWS_REGION": "us-east-1"}


def test_a_model_is_served_with_the_role_of_the_pod(issuer: Issuer, guarded: Store, pod: Pod) -> None:
    environment = prepare(pod, guarded, issuer.issue(ACCOUNT))
    pod.write_manifest(build_python("s3://models/double"))
    pod.start_agent(env=environment)
    pod.start_triton()
    pod.until_ready()

    pod.write_manifest(build_python("s3://others/double"))
    message = pod.until_reason("AccessDenied").message
    assert (
        f"Check the policies of the role {ROLE} of the pod, and that they permit to list and read 'others'" in message
    )
    assert pod.ready


def test_a_token_that_is_refused_is_reported_until_it_is_renewed(issuer: Issuer, guarded: Store, pod: Pod) -> None:
    token = issuer.issue("team:other")
    environment = prepare(pod, guarded, token)
    pod.write_manifest(build_python("s3://models/double"))
    pod.start_agent(env=environment)
    pod.start_triton()
    message = pod.until_reason("AccessDenied").message
    assert (
        f"{guarded.endpoint}, which issues the tokens, refused the role {ROLE} to the pod's service account" in message
    )
    assert "trust policy of the role names the service account of spec.predictor.pod.serviceAccountName" in message
    assert token not in message
    (pod.root / "token").unlink()
    until(lambda: "AWS_WEB_IDENTITY_TOKEN_FILE cannot be read" in pod.model().message, "there is no token", pod.agent)
    (pod.root / "token").write_text(issuer.issue(ACCOUNT))
    pod.until_ready()


def test_a_token_service_that_is_away_or_another_server(issuer: Issuer, guarded: Store, pod: Pod) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    environment = prepare(pod, guarded, issuer.issue(ACCOUNT), AWS_ENDPOINT_URL_STS=away)
    pod.write_manifest(build_python("s3://models/double"))
    pod.start_agent(env=environment)
    assert f"{away}, which issues the tokens, cannot be reached" in pod.until_reason("Unreachable").message
    prepare(pod, guarded, issuer.issue(ACCOUNT), AWS_ENDPOINT_URL_STS=issuer.url)
    until(lambda: "answered HTTP 501 Unsupported method" in pod.model().message, "another server answers", pod.agent)


@pytest.mark.parametrize("store_is_public", [True, False])
def test_the_role_is_not_for_public_and_other_stores(
    issuer: Issuer, guarded: Store, pod: Pod, *, store_is_public: bool
) -> None:
    """A store without a token service in the Secret gets no credentials of Amazon's."""
    secret = {"AWS_SKIP_SIGNATURE": "true"} if store_is_public else {}
    environment = prepare(pod, guarded, issuer.issue(ACCOUNT), **secret)
    if not store_is_public:
        (pod.root / "storage" / "AWS_ENDPOINT_URL_STS").unlink()
    pod.write_manifest(build_python("s3://models/double"))
    pod.start_agent(env=environment)
    message = pod.until_reason("AccessDenied").message
    assert "No credentials were sent" in message
    remedy = "AWS_SKIP_SIGNATURE to false in" if store_is_public else "AWS_ENDPOINT_URL_STS for the identity of the pod"
    assert f"set {remedy}" in message


def test_an_agent_that_starts_anew_without_the_identity_serves_its_revision(
    issuer: Issuer, guarded: Store, pod: Pod
) -> None:
    environment = prepare(pod, guarded, issuer.issue(ACCOUNT))
    model = build_python("s3://models/double")
    pod.write_manifest(model)
    pod.start_agent(env=environment)
    pod.start_triton()
    pod.until_ready()
    pod.write_manifest(model.model_copy(update={"digest": pod.until_reported().digest}))
    assert pod.agent
    pod.agent.kill()
    (pod.root / "token").unlink()
    pod.start_agent(env=environment | {"AWS_ROLE_ARN": "none"})
    pod.until_ready()


def test_a_model_is_served_with_the_pod_identity_of_eks(issuer: Issuer, guarded: Store, pod: Pod) -> None:
    agent = EksAgent(guarded.endpoint, issuer, ROLE, ACCOUNT)
    prepare(pod, guarded, "token-that-has-expired")
    environment = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.url,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(pod.root / "token"),
        "HTTP_PROXY": f"http://127.0.0.1:{free_port()}",  # by which that agent is not reached
        "NO_PROXY": f"127.0.0.1:{guarded.port}",
    }
    pod.write_manifest(build_python("s3://models/double"))
    pod.start_agent(env=environment)
    pod.start_triton()
    message = pod.until_reason("AccessDenied").message
    assert "which issues the tokens, refused credentials to the pod's service account (token is expired)" in message
    assert "Check the EKS Pod Identity association of spec.predictor.pod.serviceAccountName" in message

    (pod.root / "token").write_text(agent.token)
    pod.until_ready()
    requests = agent.requests
    pod.write_manifest(build_python("s3://others/double"))
    assert "Check the policies of the role of the pod, and that they permit" in pod.until_reason("AccessDenied").message
    assert agent.requests == requests, "the models of a pod share credentials"
    agent.close()
