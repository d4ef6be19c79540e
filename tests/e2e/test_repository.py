"""A change of one model of several: the whole set is rolled out, compared and rolled back as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conch_contract import names
from tests.support import clients
from tests.support.pipeline import ADDER, PIPELINE
from tests.support.place import Place
from tests.support.service import Service
from tests.support.store import Store
from tests.support.traffic import Mix, RepeatedRequest, Traffic
from tests.support.wait import until

NUMBERS = np.array([[1.5, 2.0]], dtype=np.float32)
RIGHT = 2 * (NUMBERS + 1) + 1
LIGHT = Mix(grpc=2, fresh=2, kept=2, rate=2)


Build = Callable[[str], dict[str, Any]]


def build_repository(version: str) -> dict[str, Any]:
    """Return a predictor of a repository with an ensemble."""
    model = {
        "modelFormat": {"name": "repository"},
        "storageUri": f"s3://models/pipeline/{version}",
        "storage": {"secretRef": {"name": "s3"}},
    }
    return {"entry": "pipeline", "model": model, "warmup": {"timeout": "1m"}}


def build_pipeline(version: str) -> dict[str, Any]:
    """Return a predictor of the same models, without the ensemble."""
    models = [
        {
            "name": name,
            "modelFormat": {"name": "triton"},
            "storageUri": f"s3://models/pipeline/{version}/{name}",
            "storage": {"secretRef": {"name": "s3"}},
        }
        for name in ("pre", "double", "post")
    ]
    later = [{"model": name, "inputs": {"x": "y"}} for name in ("double", "post")]
    return {"entry": "pipeline", "models": models, "pipeline": [{"model": "pre"}, *later], "warmup": {"timeout": "1m"}}


def is_right(answer: np.ndarray[Any, Any]) -> bool:
    return bool(np.allclose(answer.ravel(), RIGHT.ravel()))


@pytest.mark.parametrize("build_predictor", [build_repository, build_pipeline], ids=["ensemble", "pipeline"])
def test_parity_stops_a_pipeline_whose_last_step_is_wrong_and_names_it(
    place: Place, namespace: str, bucket: Store, figure: Callable[[str], None], build_predictor: Build
) -> None:
    bucket.upload("s3://models/pipeline/v1", PIPELINE)
    wrong, right = ADDER.replace(b"x + 1", b"x + 2"), ADDER + b"# the same in other words\n"
    bucket.upload("s3://models/pipeline/v2", {**PIPELINE, "post/1/model.py": wrong})
    bucket.upload("s3://models/pipeline/v3", {**PIPELINE, "post/1/model.py": right})
    rollout = {"analysis": [{"parity": {"requests": 3}}], "progressDeadline": "3m"}
    spec = {"predictor": build_predictor("v1"), "rollout": rollout}
    place.kube.apply(
        {"apiVersion": "conch.dev/v1alpha1", "kind": "InferenceService", "metadata": {"name": "p"}, "spec": spec},
        namespace,
    )
    service = Service(place.kube, namespace, "p")
    stable = service.until_ready()["stable"]
    request = RepeatedRequest("pipeline", "x", NUMBERS, "y", is_right)
    with place.reach(namespace, "p", names.HTTP_PORT, names.GRPC_PORT) as [http, grpc]:
        with Traffic(http, grpc, request, LIGHT) as traffic:
            service.patch({"predictor": build_predictor("v2")})

            def over() -> bool:
                return (service.status.get("rollout") or {}).get("phase") == "Failed"

            until(over, "the candidate is given up", seen=lambda: service.status.get("rollout"))
            assert service.status["rollout"]["reason"] == "AnalysisFailed"
            message = service.status["rollout"]["message"]
            assert "the step 'post' is the first that answers the same inputs differently" in message
            assert service.status["stable"] == stable
            service.patch({"predictor": build_predictor("v3")})
            status = service.settle()
        assert not traffic.failed, traffic
        assert status["stable"] != stable
        assert is_right(clients.infer_grpc(grpc, "pipeline", {"x": NUMBERS})["y"])
    figure(f"{traffic}; {message}")
    models = {model["name"]: model["digest"] for model in status["revisions"][0]["models"]}
    assert sorted(models) == ["double", "pipeline", "post", "pre"]
    assert models["post"] != models["pre"], "v1 had the same files in both"
