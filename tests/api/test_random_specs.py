"""Thousands of services with changed specs: what the API server accepts is made, or its status reports why."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from conch.api.kinds import DEPLOYMENT, INFERENCE_SERVICE
from conch.write import CallError, Server
from conch_contract import names
from tests.api.operator import Operator, condition
from tests.cluster import Cluster
from tests.fuzz.mutate import mutate
from tests.support.examples import FOLDER
from tests.support.kube import Kube, Object
from tests.support.wait import TIMEOUT, until

CANDIDATES: Final = 2000
OPERATIONS: Final = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
DOCUMENTED: Final = frozenset(
    re.findall(r"`([A-Z]\w+)`", OPERATIONS.read_text())
)  # reasons of conditions, with remedies
_AT_ONCE: Final = 16

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def candidates(seed: int) -> list[dict[str, Any]]:
    """Return services as examples have them, each with one to four values of its spec changed."""
    documents = [yaml.safe_load_all(file.read_text()) for file in sorted(FOLDER.glob("*.yaml"))]
    examples = [body for each in documents for body in each if body["kind"] == INFERENCE_SERVICE.name]
    found = []
    for number in range(CANDIDATES):
        spec = examples[number % len(examples)]["spec"]
        changed = mutate(json.dumps(spec).encode(), seed + number)
        if changed is not None:
            found.append(
                {
                    "apiVersion": INFERENCE_SERVICE.api_version,
                    "kind": INFERENCE_SERVICE.name,
                    "metadata": {"name": f"s{number}"},
                    "spec": json.loads(changed),
                }
            )
    return found


async def create(cluster: Cluster, namespace: str, bodies: list[dict[str, Any]]) -> list[str]:
    """Create services; return the names of those that the API server accepts."""
    accepted: list[str] = []
    codes: set[int] = set()
    gate = asyncio.Semaphore(_AT_ONCE)

    async with await Server.connect(str(cluster.kubeconfig)) as server:

        async def one(body: dict[str, Any]) -> None:
            async with gate:
                try:
                    made = await server.create(
                        INFERENCE_SERVICE, {**body, "metadata": {**body["metadata"], "namespace": namespace}}
                    )
                except CallError as error:
                    codes.add(error.code)
                else:
                    accepted.append(made["metadata"]["name"])

        await asyncio.gather(*(one(body) for body in bodies))
    assert codes <= {400, 422}, codes
    return accepted


def test_an_accepted_spec_is_served_or_the_status_has_the_reason(
    cluster: Cluster, kube: Kube, namespace: str, log: Path
) -> None:
    seed = int(time.time())
    with Operator(cluster, log) as operator:
        accepted = asyncio.run(create(cluster, namespace, candidates(seed)))
        assert len(accepted) > CANDIDATES // 20, "too few to show anything"

        def are_observed() -> bool:
            bodies = kube.list(INFERENCE_SERVICE, namespace)
            observed = sum(body.get("status", {}).get("observedGeneration") == 1 for body in bodies)
            return bool(observed == len(accepted))

        until(are_observed, "all services have a status", 300, seen=operator.log)
        deployed = {body["metadata"]["labels"][names.LABEL_SERVICE] for body in kube.list(DEPLOYMENT, namespace)}
        wrong = [
            (body["metadata"]["name"], body["spec"], condition(body, "Ready"))
            for body in kube.list(INFERENCE_SERVICE, namespace)
            if not _is_answered(body, deployed)
        ]
        assert not wrong, f"seed {seed}, {len(accepted)} accepted: {wrong[:5]}"
        assert "Traceback" not in operator.log(), operator.log()[-5000:]
    kube.run("--namespace", namespace, "delete", "isvc", "--all", TIMEOUT)


def _is_answered(body: Object, deployed: set[str]) -> bool:
    """Whether a service has its pods, or a status that reports why it has none."""
    ready = condition(body, "Ready")
    if ready.get("reason") == "ReconcileFailed":
        return False
    is_reported = ready.get("status") == "False" and ready.get("reason") in DOCUMENTED and bool(ready.get("message"))
    return body["metadata"]["name"] in deployed or is_reported
