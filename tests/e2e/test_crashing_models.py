"""A model that ends Triton, which is one process for all models of a pod: it is named, and the others serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from geventhttpclient.response import HTTPParseError
from tritonclient.utils import InferenceServerException

from conch_contract import names
from tests.serving.onnx_files import multiply
from tests.support import clients
from tests.support.kube import Kube
from tests.support.layouts import X
from tests.support.place import Place
from tests.support.service import Service
from tests.support.store import Store
from tests.support.wait import until

# The first process of a container takes no SIGKILL from inside. After SIGTERM, Triton waits for its loads.
ENDS_TRITON = b"""
import os
import signal
import time


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.set_max_batch_size(0)
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [-1]})
        return config

    def initialize(self, args):
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(600)
"""


def build_model(name: str, folder: str, form: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "modelFormat": {"name": form},
        "storageUri": f"s3://models/{folder}",
        "storage": {"secretRef": {"name": "s3"}},
        **fields,
    }


def apply(kube: Kube, namespace: str, models: list[dict[str, Any]]) -> Service:
    body = {
        "apiVersion": "conch.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "set"},
        "spec": {"predictor": {"entry": "good", "models": models}, "rollout": {"progressDeadline": "15m"}},
    }
    kube.apply(body, namespace)
    return Service(kube, namespace, "set")


def find_model(service: Service, name: str, reason: str) -> dict[str, Any] | None:
    """Return a model in the status, once it has a reason."""
    revisions = service.status.get("revisions") or [{}]
    found = (model for model in revisions[0].get("models") or [] if model["name"] == name)
    return next((model for model in found if model.get("reason") == reason), None)


def answers(http: str, model: str, x: np.ndarray[Any, Any] = X) -> bool:
    """Return True if a model answers a request with twice its input."""
    try:
        return bool((clients.infer_http(http, model, {"x": x})["y"] == 2 * x).all())
    except (OSError, HTTPParseError, InferenceServerException):
        return False


@pytest.mark.long  # minutes: the kubelet waits longer after each end of a container
@pytest.mark.timeout(1200, func_only=True)
def test_the_model_that_ends_triton_is_named_and_the_others_are_served(
    place: Place, kube: Kube, namespace: str, bucket: Store, figure: Callable[[str], None]
) -> None:
    bucket.upload("s3://models/crashes", {"good/model.onnx": multiply(2), "bad/model.py": ENDS_TRITON})
    models = [
        build_model("good", "crashes/good", "onnx"),
        build_model("bad", "crashes/bad", "python", required=False),
    ]
    service = apply(kube, namespace, models)

    def find_culprit() -> dict[str, Any] | None:
        return find_model(service, "bad", "LoadCrashed")

    culprit = until(find_culprit, "the model is named", 600, seen=lambda: service.status.get("revisions"))
    assert "Triton ended" in culprit["message"]
    until(service.ready_pods, "the pod is ready without it", 300)
    status = service.until_condition("Ready", "True", "Served")
    figure(status["message"])
    assert "bad" in status["message"]
    with place.reach(namespace, service.name, names.HTTP_PORT) as [http]:
        assert (clients.infer_http(http, "good", {"x": X})["y"] == 2 * X).all()
    service.patch({"predictor": {"models": [models[0], {**models[1], **build_model("bad", "crashes/good", "onnx")}]}})
    service.settle()
    with place.reach(namespace, service.name, names.HTTP_PORT) as [http]:
        # By the pods of before it is not, until they have left the Service.
        until(lambda: answers(http, "bad"), "another content of the model is served")


@pytest.mark.long  # minutes, as above
@pytest.mark.timeout(1200, func_only=True)
def test_the_model_that_ends_triton_at_requests_is_named_and_the_others_are_served(
    place: Place, kube: Kube, namespace: str, bucket: Store, figure: Callable[[str], None]
) -> None:
    bucket.upload("s3://models/crashes", {"good/model.onnx": multiply(2)})
    dies = {"triton": {"parameters": {"FACTOR": "2", "DIES": "5"}}}  # seconds after its load, at a request
    models = [build_model("good", "crashes/good", "onnx"), build_model("bad", "times-2", "python", **dies)]
    service = apply(kube, namespace, models)
    service.until_ready()
    with place.reach(namespace, service.name, names.HTTP_PORT) as [http]:
        until(lambda: answers(http, "good"), "the other model answers")
        until(lambda: answers(http, "bad", X[0]), "the model answers")

        def find_culprit() -> dict[str, Any] | None:
            answers(http, "bad", X[0])
            return find_model(service, "bad", "RequestsCrashed")

        culprit = until(find_culprit, "the model is named", 600, seen=lambda: service.status.get("revisions"))
        assert "while it answered requests, each time after model 'bad'" in culprit["message"]
        until(lambda: answers(http, "good"), "the other model is served")
        ready = service.until_condition("Ready", "True", "Served")
        figure(ready["message"])
        assert "Model bad is not served" in ready["message"]
