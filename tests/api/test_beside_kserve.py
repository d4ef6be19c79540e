"""Conch's InferenceService in a cluster that has KServe's too: of the same names, in another API group."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.api.operator import isvc
from tests.support.kube import Kube, KubectlError, Object
from tests.support.wait import TIMEOUT, until

NAMES = {"kind": "InferenceService", "plural": "inferenceservices", "singular": "inferenceservice"}
KSERVE: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "inferenceservices.serving.kserve.io"},
    "spec": {
        "group": "serving.kserve.io",
        "scope": "Namespaced",
        "names": {**NAMES, "shortNames": ["isvc"]},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@pytest.fixture
def kserve(kube: Kube) -> Iterator[None]:
    """KServe's CRD, as far as names go."""
    kube.apply(KSERVE)
    name = KSERVE["metadata"]["name"]
    kube.run("wait", "--for=condition=Established", f"crd/{name}", TIMEOUT)
    yield
    kube.run("delete", "crd", name, "--wait=true")


@pytest.mark.usefixtures("kserve")
def test_the_names_that_lead_to_conchs(kube: Kube, namespace: str) -> None:
    kube.apply(isvc(), namespace)
    theirs = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "theirs"}}
    until(lambda: is_taken(kube, theirs, namespace), "KServe's API is served")
    for name in ("cisvc", "inferenceservices.conch.dev", "isvc", *NAMES.values()):
        assert listed(kube, namespace, name) == ["inferenceservice.conch.dev/magika"], name
    theirs_name = "inferenceservices.serving.kserve.io"
    assert listed(kube, namespace, theirs_name) == ["inferenceservice.serving.kserve.io/theirs"]


def is_taken(kube: Kube, body: Object, namespace: str) -> bool:
    """Whether an object is applied: for a moment after its CRD is there, a storage answers 429."""
    with contextlib.suppress(KubectlError):
        kube.apply(body, namespace)
        return True
    return False


def listed(kube: Kube, namespace: str, resource: str) -> list[str]:
    """What a person sees."""
    return kube.run("get", resource, f"--namespace={namespace}", "--output=name").split()
