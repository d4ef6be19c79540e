"""A model that remembers, in two pods: the gateway sends a sequence to the pod that has its state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException

from conch.api.kinds import BACKEND_TRAFFIC_POLICY
from tests.support.examples import FOLDER
from tests.support.gateways import Gateway
from tests.support.kube import Kube
from tests.support.service import Service
from tests.support.wait import until

EXAMPLE: Final[Path] = FOLDER / "sequences.yaml"
HOST, MODEL, HEADER = "running-sum.example.com", "running-sum", "x-sequence"
SEQUENCES, LENGTH = 20, 5


def add(address: str, sequence: int, place: int, header: str | None) -> tuple[float, str]:
    """Send one number of a sequence by a connection of its own; return the sum so far, and the pod that has it.

    Raises:
        InferenceServerException: the pod has not seen the sequence begin.
    """
    library: Any = over_grpc if sequence % 2 else over_http
    value = library.InferInput("x", [1, 1], "FP32")
    value.set_data_from_numpy(np.array([[1.0]], dtype=np.float32))
    headers = {header: str(sequence)} if header else {}
    options: dict[str, Any] = {}
    if library is over_grpc:
        options["channel_args"] = [("grpc.default_authority", HOST), ("grpc.use_local_subchannel_pool", 1)]
    else:
        headers["Host"] = HOST
    with library.InferenceServerClient(address, **options) as client:
        answer = client.infer(
            MODEL,
            [value],
            sequence_id=sequence,
            sequence_start=place == 0,
            sequence_end=place == LENGTH - 1,
            headers=headers,
        )
    return float(answer.as_numpy("sum").ravel()[0]), answer.as_numpy("pod").ravel()[0].decode()


def warned(service: Service) -> bool:
    models = [model for revision in service.status.get("revisions", ()) for model in revision["models"]]
    return any(warning["reason"] == "SequenceState" for model in models for warning in model.get("warnings", ()))


def test_the_gateway_sends_a_sequence_to_one_pod(
    kube: Kube, namespace: str, gateway: Gateway, figure: Callable[[str], None]
) -> None:
    kube.apply(EXAMPLE, namespace)
    service = Service(kube, namespace, MODEL)
    service.until_ready()

    def accepted() -> bool:
        [policy] = service.children(BACKEND_TRAFFIC_POLICY)
        conditions = [one for each in policy.get("status", {}).get("ancestors", ()) for one in each["conditions"]]
        return any(one["type"] == "Accepted" and one["status"] == "True" for one in conditions)

    until(accepted, "Envoy Gateway has accepted the policy")
    until(lambda: answers(gateway, 1000), "the gateway leads to the pods")
    where: dict[int, set[str]] = {}
    for place in range(LENGTH):  # all sequences are open at once
        for sequence in range(1, SEQUENCES + 1):
            total, pod = add(gateway.address, sequence, place, HEADER)
            assert total == place + 1
            where.setdefault(sequence, set()).add(pod)
    assert all(len(pods) == 1 for pods in where.values()), where
    used = {pod for pods in where.values() for pod in pods}
    figure(f"{SEQUENCES} sequences of {LENGTH} requests, each in one pod, in {len(used)} pods")
    assert len(used) == 2, "one of 2^19 times by chance"
    assert not warned(service)

    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        send_without_header(gateway.address)

    service.patch({"traffic": {"consistentHash": None}})
    until(lambda: warned(service), "the status has what becomes of sequences")
    until(lambda: not service.children(BACKEND_TRAFFIC_POLICY), "the policy goes")


def send_without_header(address: str) -> None:
    """Send as many sequences, one after another."""
    for sequence in range(101, 101 + SEQUENCES):
        for place in range(LENGTH):
            add(address, sequence, place, None)


def answers(gateway: Gateway, sequence: int) -> bool:
    """Whether the gateway answers for a sequence of one request."""
    try:
        add(gateway.address, sequence, 0, HEADER)
    except (InferenceServerException, OSError):
        return False
    return True
