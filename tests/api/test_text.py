"""Texts of users in fields that take any: accepted and served as they are, or refused by the name of the field."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

from conch.api.kinds import DEPLOYMENT, INFERENCE_SERVICE
from conch.observe.fields import value_at
from tests.api.operator import Audit, Operator, condition
from tests.api.server import Server, merged, service
from tests.cluster import Cluster
from tests.support.kube import Kube, Object
from tests.support.wait import until

TEXTS: Final = {
    "plane": "\N{PILE OF POO}\U0010ffff",
    "yaml": "a: {b}\n--- # \u2028 \ufeff \x85",
    "control": "\x01\x1b[31m\x7f",
    "nul": "a\x00b",
    "noncharacter": "\ufffe\uffff",
    "long": "é" * 2048,
    "spaces": "  \t ",
}
ROLLOUT: Final[dict[str, Any]] = {"steps": [{"weight": 50}, {"analysis": "1m"}]}


def predictor(**fields: Any) -> dict[str, Any]:
    return {"spec": {"predictor": fields}}


def fields_with(text: str) -> dict[str, dict[str, Any]]:
    """Return a change of a service for each field that takes a text, by the word that names the field."""
    gate = {"name": "answers", "prometheus": {"server": "http://prometheus:9090", "query": text, "max": 1}}
    return {
        "conch.dev/change-cause": {"metadata": {"annotations": {"conch.dev/change-cause": text}}},
        "env": predictor(pod={"env": [{"name": "TEXT", "value": text}]}),
        "labels": predictor(pod={"labels": {"example.com/text": text}}),
        "annotations": predictor(pod={"annotations": {"example.com/text": text}}),
        "args": predictor(triton={"args": [f"--log-file={text}"]}),
        "query": {"spec": {"rollout": ROLLOUT | {"analysis": [gate]}, "traffic": {"split": "Replicas"}}},
    }


async def test_a_text_is_served_as_it_is_or_refused_by_the_name_of_its_field(
    cluster: Cluster, kube: Kube, server: Server, namespace: str, log: Path
) -> None:
    accepted: dict[str, Object] = {}
    for name, text in TEXTS.items():
        for field, change in fields_with(text).items():
            refusal = await server.refusal(service(change))
            # The API server knows no rule for labels of pods before it sees a pod: a service of their own.
            kept = f"{name}-labels" if field == "labels" else name
            accepted.setdefault(kept, service({"metadata": {"name": kept}}))
            if refusal:
                assert field in refusal, (name, field, refusal)
            else:
                accepted[kept] = merged(accepted[kept], change)
    with Operator(cluster, log) as operator:
        kube.apply(list(accepted.values()), namespace)

        def reported(name: str) -> dict[str, str] | None:
            """Return the Ready condition once it is final."""
            body = kube.get(INFERENCE_SERVICE, namespace, name) or {}
            ready = condition(body, "Ready")
            seen = body.get("status", {}).get("observedGeneration") == body["metadata"]["generation"]
            return ready if seen and ready.get("status") in {"True", "False"} else None

        for name, body in accepted.items():

            def final(name: str = name) -> dict[str, str] | None:
                return reported(name)

            ready = until(final, f"{name} is served or refused", seen=operator.log)
            if ready["status"] == "True":
                [deployment] = kube.list(DEPLOYMENT, namespace, f"conch.dev/service={name}")
                template = deployment["spec"]["template"]
                pod = value_at(body, ".spec.predictor.pod") or {}
                environment = {
                    env["name"]: env.get("value", "") for env in template["spec"]["containers"][0].get("env", ())
                }
                assert all(environment[env["name"]] == env["value"] for env in pod.get("env", ()))
                assert pod.get("annotations", {}).items() <= template["metadata"]["annotations"].items()
                assert pod.get("labels", {}).items() <= template["metadata"]["labels"].items()
            else:
                assert any(field in ready["message"] for field in fields_with("")), (name, ready)
        audit = Audit(cluster)
        kube.run("--namespace", namespace, "annotate", "isvc", "--all", "touched=1")
        await asyncio.sleep(3)
        assert "Traceback" not in operator.log()
        assert "status rejected" not in operator.log()
        assert [write for write in audit.writes(namespace) if "status" in write] == [], json.dumps(list(accepted))
