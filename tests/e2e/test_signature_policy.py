"""A signature policy that an administrator sets on a Namespace, from the label to the pods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conch.api.kinds import CONFIG_MAP, POD
from conch.api.names import LABEL_POLICY, LABEL_SIGNATURE_POLICY
from conch_contract import names
from tests.support import examples
from tests.support.kube import Kube, KubectlError
from tests.support.place import SYSTEM
from tests.support.service import Service
from tests.support.wait import until

SIGNED = "s3://models/magika-signed"


@pytest.fixture
def set_policy(kube: Kube, namespace: str) -> Iterator[Callable[[], None]]:
    """Set a policy with the key of the examples; it is gone in the end."""

    def apply() -> None:
        metadata = {"name": namespace, "labels": {LABEL_POLICY: "signature"}}
        kube.create(CONFIG_MAP, {"metadata": metadata, "data": examples.build_trusted_keys()["data"]}, SYSTEM)
        kube.run("label", "namespace", namespace, f"{LABEL_SIGNATURE_POLICY}={namespace}")

    yield apply
    kube.delete(CONFIG_MAP, SYSTEM, namespace)


def _build_model(uri: str) -> dict[str, Any]:
    return {"modelFormat": {"name": "onnx"}, "storageUri": uri, "storage": {"secretRef": {"name": "s3"}}}


def test_what_serves_goes_on_and_only_what_is_signed_is_loaded(
    kube: Kube, namespace: str, serve: Callable[..., Service], set_policy: Callable[[], None]
) -> None:
    service = serve("magika", minReplicas=2)
    service.until_ready()
    set_policy()
    service.until_condition("SignaturePolicy", "False", "ModelsNotSigned")
    service.until_ready()
    [first, _] = kube.list(POD, namespace, f"{names.LABEL_SERVICE}=magika")
    config_map = first["metadata"]["labels"][names.LABEL_WORKLOAD]

    # A new pod of the old revision loads nothing; the other one serves on.
    until(lambda: _has_policy(kube, namespace, config_map), "the pods' ConfigMap has the policy")
    kube.delete(POD, namespace, first["metadata"]["name"])
    until(lambda: "SignatureMissing" in json.dumps(service.status), "the status has why the new pod is not ready")
    service.until_condition("Serving", "True")

    # Signed content is a new revision, which all pods have verified.
    service.patch({"predictor": {"model": {"storageUri": SIGNED}}})
    signed = service.until_ready()["stable"]
    service.until_condition("SignaturePolicy", "True", "ModelsSigned")

    patch = json.dumps({"data": {names.POLICY_FILE: None}})
    kube.run("create", "rolebinding", "ann", f"--namespace={namespace}", "--clusterrole=edit", "--user=ann")
    with pytest.raises(KubectlError, match="Conch manages this object"):
        kube.run("patch", "configmap", signed, f"--namespace={namespace}", f"--patch={patch}", "--as=ann")


def test_a_new_service_needs_a_signature(
    namespace: str, serve: Callable[..., Service], set_policy: Callable[[], None]
) -> None:
    del namespace
    set_policy()
    unsigned = serve("unsigned")
    signed = serve("signed", model=_build_model(SIGNED))
    signed.until_ready()
    signed.until_condition("SignaturePolicy", "True", "ModelsSigned")
    unsigned.until_condition("Ready", "False", "SignatureMissing")


def _has_policy(kube: Kube, namespace: str, config_map: str) -> bool:
    body = kube.get(CONFIG_MAP, namespace, config_map) or {}
    return names.POLICY_FILE in body.get("data", {})
