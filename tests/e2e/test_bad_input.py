"""Whatever a user gets wrong is named in a condition and an event, what served before goes on, and mending suffices.

All services are made, then broken, then corrected together: each test checks one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import urllib3

from conch_contract import AgentReport, names
from tests.e2e.conftest import MakeNamespace, manifest
from tests.support import clients, examples, filetypes
from tests.support.doubling import NUMBERS, build_predictor
from tests.support.kube import Kube, Object
from tests.support.place import Place
from tests.support.service import Service
from tests.support.store import Store
from tests.support.wait import until

_RUN = f"{int(time.time()):x}"  # the store outlives a run, and what was corrected in it stays so
NOWHERE, EMPTY = f"nowhere-{_RUN}", f"s3://models/empty-{_RUN}"
GARBAGE = b"these are not the bytes of a model"


@dataclass(frozen=True)
class Case:
    """One mistake. `change` is merged over a predictor that serves; `reason` and `words` must be in the condition."""

    name: str
    change: Mapping[str, Any]
    reason: str
    words: tuple[str, ...]
    mend: Callable[[Store, Service], None]
    secret: Mapping[str, str] = field(default_factory=dict)  # the password of a Secret that is made for it
    onnx: bool = False  # the model is magika; else one that doubles numbers, whose pod starts sooner


def _model(uri: str, secret: str = "s3") -> dict[str, Any]:  # noqa: S107  a Secret's name
    return {"model": {"storageUri": uri, "storage": {"secretRef": {"name": secret}}}}


def _upload(uri: str, *, onnx: bool = False) -> Callable[[Store, Service], None]:
    def mend(store: Store, _service: Service) -> None:
        files = {"model.onnx": filetypes.MODEL} if onnx else {"model.py": examples.MODELS / "double" / "model.py"}
        store.upload(uri, files)

    return mend


def _right_secret(name: str) -> Callable[[Store, Service], None]:
    def mend(store: Store, service: Service) -> None:
        service.kube.apply(store.secret(name=name), service.namespace)

    return mend


def _patch(change: Mapping[str, Any]) -> Callable[[Store, Service], None]:
    return lambda _store, service: service.patch({"predictor": change})


def _more_quota(_store: Store, service: Service) -> None:
    service.kube.apply(_quota(10), service.namespace)


def _secret_of_the_volume(_store: Store, service: Service) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "rules"}, "stringData": {"rules": ""}}
    service.kube.apply(secret, service.namespace)


def _quota(pods: int) -> Object:
    meta = {"name": "pods"}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"pods": str(pods)}}}


CASES = [
    Case(
        "no-bucket",
        _model(f"s3://{NOWHERE}/double"),
        "BucketNotFound",
        (NOWHERE, "does not exist"),
        _upload(f"s3://{NOWHERE}/double"),
    ),
    Case(
        "wrong-key",
        _model("s3://models/times-2", "wrong-key"),
        "AccessDenied",
        ("refused access", "AWS_SECRET_ACCESS_KEY"),
        _right_secret("wrong-key"),
        {"wrong-key": "not the password"},
    ),
    Case(
        "no-secret",
        _model("s3://models/times-2", "forgotten"),
        "SecretMissing",
        ("storage.secretRef", "does not exist"),
        _right_secret("forgotten"),
    ),
    Case("empty", _model(EMPTY), "Empty", (EMPTY, "no files"), _upload(EMPTY)),
    Case(
        "garbage",
        _model("s3://models/garbage"),
        "LoadFailed",
        ("INVALID_PROTOBUF",),
        _upload("s3://models/garbage", onnx=True),
        onnx=True,
    ),
    Case(
        "no-image",
        {"triton": {"image": "conch.invalid/triton:1"}},
        "ImagePullFailed",
        ("conch.invalid/triton:1",),
        _patch({"triton": {"image": None}}),
    ),
    Case(
        "no-volume",
        {
            "pod": {
                "volumes": [{"name": "rules", "secret": {"secretName": "rules"}}],
                "volumeMounts": [{"name": "rules", "mountPath": "/rules"}],
            }
        },
        "VolumeNotMounted",
        ('secret "rules" not found',),
        _secret_of_the_volume,
    ),
    Case(
        "quota",
        _model("s3://models/times-3"),
        "QuotaExceeded",
        ("exceeded quota", "pods=1"),
        _more_quota,
    ),
]


@pytest.fixture(scope="module")
def spaces(make_namespace: MakeNamespace, kube: Kube) -> Iterator[dict[str, str]]:
    """A namespace for all cases, and one with a quota of one pod."""
    with make_namespace("e2e-bad-input") as common, make_namespace("e2e-bad-quota") as narrow:
        kube.apply(_quota(1), narrow)
        yield {case.name: narrow if case.name == "quota" else common for case in CASES}


@pytest.fixture(scope="module")
def broken_services(spaces: dict[str, str], kube: Kube, bucket: Store) -> dict[str, tuple[Service, str]]:
    """Every case's service, after it served and was then changed for the worse; and the revision that served."""
    bucket.upload("s3://models/garbage", {"model.onnx": GARBAGE})
    services = {}
    for case in CASES:
        for name, password in case.secret.items():
            kube.apply(bucket.secret(name=name, password=password), spaces[case.name])
        kube.apply(manifest(case.name, **({} if case.onnx else build_predictor(2))), spaces[case.name])
        services[case.name] = Service(kube, spaces[case.name], case.name)
    stable = {name: service.until_ready(180)["stable"] for name, service in services.items()}
    for case in CASES:
        services[case.name].patch({"predictor": case.change})
    return {name: (service, stable[name]) for name, service in services.items()}


def _case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_a_mistake_is_named_and_what_served_goes_on(
    name: str, broken_services: dict[str, tuple[Service, str]], place: Place, figure: Callable[[str], None]
) -> None:
    case, (service, stable) = _case(name), broken_services[name]
    if name == "garbage":
        figure(_wait_for_report(service, stable))
    condition = service.until_condition("Ready", "False", case.reason)
    for words in case.words:
        assert words in condition["message"], condition
    event = service.until_event(case.reason)
    assert event["type"] == "Warning"
    assert case.words[0] in event["note"]
    status = service.status
    assert status["stable"] == stable
    assert service.condition("Serving")["status"] == "True"
    if case.reason in {"BucketNotFound", "AccessDenied", "SecretMissing", "Empty", "LoadFailed"}:
        models = next(r for r in status["revisions"] if r["name"] == status["candidate"])["models"]
        assert (models[0]["state"], models[0]["reason"]) == ("Failed", case.reason)
        assert case.words[0] in models[0]["message"]
    _infer(place, case, service)


def _wait_for_report(service: Service, stable: str) -> str:
    """Triton's words are in the status soon after the agent has them."""
    pod = until(
        lambda: next((p for p in service.pods() if _revision(p) != stable and p["status"].get("podIP")), None),
        "the candidate's pod has an address",
    )
    address = f"http://{pod['status']['podIP']}:{names.AGENT_PORT}{names.STATUS_PATH}"

    def failed() -> str:
        try:
            answer = urllib3.request("GET", address, timeout=2, retries=False)
        except urllib3.exceptions.HTTPError:
            return ""
        report = AgentReport.model_validate_json(answer.data)
        return next((model.message for model in report.models if model.reason == "LoadFailed"), "")

    words = until(failed, "the agent reports the failure")
    began = time.monotonic()

    def is_reported() -> bool:
        models = [m for r in service.status.get("revisions", ()) for m in r.get("models", ())]
        return any(model["message"] == words for model in models)

    until(is_reported, f"the status has: {words}")
    seconds, line = time.monotonic() - began, words.splitlines()[0]
    return f"Triton's words were in the status {seconds:.1f} s after the agent had them: {line}"


def _revision(pod: Object) -> str:
    return str(pod["metadata"]["labels"][names.LABEL_REVISION])


def _infer(place: Place, case: Case, service: Service) -> None:
    with place.reach(service.namespace, service.name, names.HTTP_PORT) as [http]:
        if case.onnx:
            inputs = {filetypes.INPUT: filetypes.features(filetypes.samples()["dot.png"])}
            answer: np.ndarray[Any, Any] = clients.infer_http(http, service.name, inputs)[filetypes.OUTPUT]
            assert filetypes.label(answer)[0] == "png"
        else:
            assert clients.infer_http(http, "double", {"x": NUMBERS})["y"].tolist() == (2 * NUMBERS).tolist()


@pytest.fixture(scope="module")
def corrected_services(
    broken_services: dict[str, tuple[Service, str]], bucket: Store
) -> dict[str, tuple[Service, str]]:
    """Every case's service, after its mistake was put right."""
    for case in CASES:
        case.mend(bucket, broken_services[case.name][0])
    return broken_services


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_a_service_recovers_when_its_mistake_is_corrected(
    name: str, corrected_services: dict[str, tuple[Service, str]], place: Place, figure: Callable[[str], None]
) -> None:
    service, _ = corrected_services[name]
    began = time.monotonic()
    service.settle()
    figure(f"settled after {time.monotonic() - began:.0f} s of looking")
    _infer(place, _case(name), service)
