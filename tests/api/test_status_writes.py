"""Statuses that an API server or a policy does not take, and services that are gone when they are written."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from conch.api.kinds import DEPLOYMENT, INFERENCE_SERVICE, Ref, ServiceKey
from conch.decide import Event
from conch.events.handlers import EventHandlers
from conch.observe import Store
from conch.plan import Delete, Release
from conch.queue import REST_SECONDS, WorkQueue
from conch.write import EventWriter, Server, Writer
from tests.api.operator import Operator, are_ready, children, condition, isvc
from tests.cluster import Cluster
from tests.support.kube import Kube, Object
from tests.support.wait import until

HOSTILE = {
    "emoji": "the model fails \N{SKULL AND CROSSBONES}\N{VARIATION SELECTOR-16} \N{PILE OF POO}",
    "surrogate": "half of a pair: \ud83d",
    "nul": "a\x00b",
    "controls": "\x1b[31m\x7f\x85\u2028\ufeff\uffff",
    "long": "é" * 5000,
}


@pytest.fixture
async def connection(cluster: Cluster) -> AsyncIterator[Server]:
    async with await Server.connect(str(cluster.kubeconfig)) as server:
        yield server


def created(kube: Kube, namespace: str, name: str = "magika") -> Object:
    kube.apply(isvc(name), namespace)
    body = kube.get(INFERENCE_SERVICE, namespace, name)
    assert body is not None
    return body


def status(message: str) -> dict[str, Any]:
    moment = "2026-01-01T00:00:00Z"
    ready = {"type": "Ready", "status": "False", "reason": "LoadFailed", "message": message}
    return {
        "observedGeneration": 1,
        "conditions": [{**ready, "lastTransitionTime": moment}],
        "rollout": {
            "revision": "magika-b",
            "phase": "Progressing",
            "step": 1,
            "since": moment,
            "weight": 50,
            "message": message,
        },
    }


async def test_a_status_of_any_text_is_stored(kube: Kube, namespace: str, connection: Server) -> None:
    body = created(kube, namespace)
    writer = Writer(connection, lambda _: None)
    for text in HOSTILE.values():
        assert await writer.write_status(ServiceKey(namespace, "magika"), body["metadata"]["uid"], status(text))
        stored = (kube.get(INFERENCE_SERVICE, namespace, "magika") or {})["status"]
        assert stored == status(text.replace("\ud83d", "\N{REPLACEMENT CHARACTER}"))


@pytest.fixture
def poison(kube: Kube, namespace: str) -> Iterator[str]:
    """A policy of the cluster that refuses a status that holds a word in a message."""
    name, word = f"{namespace}.conch.dev", "poison"
    match = {
        "apiGroups": ["conch.dev"],
        "apiVersions": ["*"],
        "operations": ["UPDATE"],
        "resources": ["inferenceservices/status"],
    }
    refuse = f"!has(object.status.rollout.message) || !object.status.rollout.message.contains('{word}')"
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    policy = {
        **head,
        "kind": "ValidatingAdmissionPolicy",
        "spec": {
            "matchConstraints": {
                "resourceRules": [match],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            },
            "validations": [{"expression": refuse, "message": "no poison here"}],
        },
    }
    spec = {"policyName": name, "validationActions": ["Deny"]}
    kube.apply([policy, {**head, "kind": "ValidatingAdmissionPolicyBinding", "spec": spec}], namespace)
    yield word
    kube.run("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", name)


async def test_a_status_that_is_refused_is_stored_without_what_is_refused(
    kube: Kube, namespace: str, connection: Server, poison: str
) -> None:
    body = created(kube, namespace)
    key, uid = ServiceKey(namespace, "magika"), body["metadata"]["uid"]
    writer = Writer(connection, lambda _: None)

    async def refused() -> dict[str, Any]:
        assert await writer.write_status(key, uid, status(poison))
        return dict((kube.get(INFERENCE_SERVICE, namespace, "magika") or {})["status"]["rollout"])

    deadline = asyncio.get_running_loop().time() + 30
    while "message" in (rollout := await refused()):  # the API server takes a policy up a moment after it is stored
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.5)
    assert rollout == {key: value for key, value in status("")["rollout"].items() if key != "message"}
    assert await writer.write_status(key, uid, status("all is well"))
    assert (kube.get(INFERENCE_SERVICE, namespace, "magika") or {})["status"] == status("all is well")


async def test_a_status_that_is_too_large_is_stored_without_its_details(
    kube: Kube, namespace: str, connection: Server
) -> None:
    body = created(kube, namespace)
    models = [{"name": f"m{number}", "message": "x" * 4000} for number in range(500)]
    large = {**status("fits"), "revisions": [{"name": "magika-b", "number": 2, "models": models}]}
    writer = Writer(connection, lambda _: None)
    assert await writer.write_status(ServiceKey(namespace, "magika"), body["metadata"]["uid"], large)
    stored = (kube.get(INFERENCE_SERVICE, namespace, "magika") or {})["status"]
    assert stored["rollout"]["weight"] == 50
    assert stored["revisions"][0]["number"] == 2


async def test_a_write_to_a_service_that_is_gone_is_no_error(kube: Kube, namespace: str, connection: Server) -> None:
    seen: list[object] = []
    writer, key = Writer(connection, seen.append), ServiceKey(namespace, "magika")
    gone = created(kube, namespace)["metadata"]["uid"]
    kube.run("--namespace", namespace, "delete", "inferenceservice/magika")
    assert not await writer.write_status(key, gone, status("late"))
    assert seen == []

    # Another one of its name: nothing of the old one's memory is left in it.
    new = created(kube, namespace)
    assert not await writer.write_status(key, gone, status("late"))
    stored = kube.get(INFERENCE_SERVICE, namespace, "magika") or {}
    assert stored["metadata"]["uid"] == new["metadata"]["uid"]
    assert stored["status"] == {"observedGeneration": -1}

    # Its children, and those of a namespace that is gone.
    ref = Ref(DEPLOYMENT, "magika-a")
    assert await writer.execute(key, gone, [(Delete(ref, "another-uid"),)]) == []
    scale = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "magika-a", "namespace": namespace, "uid": "another-uid"},
        "spec": {"replicas": 2},
    }
    assert await writer.execute(key, gone, [(Release(ref, scale),)]) == []
    nowhere = ServiceKey(f"{namespace}-gone", "magika")
    assert not await writer.write_status(nowhere, gone, status("late"))
    await EventWriter(connection, "test").record(nowhere, gone, [Event("Normal", "Served", "Serve", "é" * 2000)], 0.0)


async def begin(kube: Kube, namespace: str, connection: Server) -> tuple[Object, EventHandlers, Writer]:
    """Create a service, and take it from the queue as its reconcile does."""
    handlers = EventHandlers(Store(), None, WorkQueue())
    body = created(kube, namespace)
    handlers.handle(body)
    assert await handlers.queue.get() == ServiceKey(namespace, "magika")
    return body, handlers, Writer(connection, handlers.handle_written)


async def test_an_edit_during_the_write_of_a_status_queues_the_service(
    kube: Kube, namespace: str, connection: Server
) -> None:
    """The answer has the edit, so that the events of both are no news."""
    new, handlers, writer = await begin(kube, namespace, connection)
    key, queue = ServiceKey(namespace, "magika"), handlers.queue
    assert await writer.write_status(key, new["metadata"]["uid"], status("starts"))
    queue.done(key)
    await asyncio.sleep(2 * REST_SECONDS)
    assert queue.idle, "a status alone queues nothing"

    handlers.handle(kube.get(INFERENCE_SERVICE, namespace, "magika") or {})
    kube.run("--namespace", namespace, "annotate", "inferenceservice/magika", "conch.dev/paused=true")
    edited = kube.get(INFERENCE_SERVICE, namespace, "magika") or {}
    assert await writer.write_status(key, new["metadata"]["uid"], status("goes on"))
    handlers.handle(edited)
    handlers.handle(kube.get(INFERENCE_SERVICE, namespace, "magika") or {})
    assert await asyncio.wait_for(queue.get(), 20) == key
    queue.close()


async def test_a_service_that_replaced_another_during_the_write_of_its_status_is_queued(
    kube: Kube, namespace: str, connection: Server
) -> None:
    old, handlers, writer = await begin(kube, namespace, connection)
    key, queue = ServiceKey(namespace, "magika"), handlers.queue
    kube.run("--namespace", namespace, "delete", "inferenceservice/magika")
    new = created(kube, namespace)
    assert not await writer.write_status(key, old["metadata"]["uid"], status("late"))
    queue.done(key)
    handlers.handle(old, is_deleted=True)
    handlers.handle(new)
    handlers.handle(kube.get(INFERENCE_SERVICE, namespace, "magika") or {})
    assert await asyncio.wait_for(queue.get(), 20) == key
    known = handlers.store.get(key, Ref(INFERENCE_SERVICE, "magika")) or {}
    assert known["metadata"]["uid"] == new["metadata"]["uid"]
    queue.close()


async def test_an_event_of_a_long_text_is_stored(kube: Kube, namespace: str, connection: Server) -> None:
    body = created(kube, namespace)
    note = HOSTILE["emoji"] + HOSTILE["surrogate"] + HOSTILE["long"]
    event = Event("Warning", "LoadFailed" * 20, "Serve", note)
    await EventWriter(connection, "test").record(ServiceKey(namespace, "magika"), body["metadata"]["uid"], [event], 0.0)
    stored = json.loads(kube.run("--namespace", namespace, "get", "events.events.k8s.io", "--output=json"))["items"]
    assert [each["note"][:15] for each in stored] == ["the model fails"]


@pytest.fixture
def prometheus() -> Iterator[str]:
    """A server that answers every query with an error whose text no YAML has."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.dumps({"status": "error", "errorType": "bad_data", "error": "".join(HOSTILE.values())}).encode()
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_rollout_keeps_its_deadline_whatever_texts_it_meets(
    cluster: Cluster, kube: Kube, namespace: str, log: Path, prometheus: str
) -> None:
    def service(uri: str) -> Object:
        body = isvc(uri=uri, minReplicas=2, pod={"env": [{"name": "GREETING", "value": HOSTILE["emoji"]}]})
        body["metadata"]["annotations"] = {"conch.dev/change-cause": HOSTILE["emoji"] + HOSTILE["long"]}
        gate = {"name": "errors", "prometheus": {"server": prometheus, "query": "up", "max": 1}, "interval": "1s"}
        body["spec"]["traffic"] = {"split": "Replicas"}
        body["spec"]["rollout"] = {"steps": [{"weight": 50}, {"analysis": "1s"}], "analysis": [gate]}
        return body

    def rollout() -> dict[str, Any]:
        found = kube.get(INFERENCE_SERVICE, namespace, "magika") or {}
        return dict(found.get("status", {}).get("rollout") or {})

    with Operator(cluster, log) as operator:
        kube.apply(service("s3://models/one"), namespace)
        until(are_ready(kube, namespace), "the service is Ready")
        kube.apply(service("s3://models/two"), namespace)
        until(lambda: rollout().get("gates"), "the gate has been evaluated", seen=rollout)
        kube.patch(INFERENCE_SERVICE, namespace, "magika", {"spec": {"rollout": {"progressDeadline": "1s"}}})
        until(lambda: rollout().get("phase") == "Failed", "the candidate is given up at its deadline", seen=rollout)
        until(lambda: len([r for r in children(kube, namespace) if r.kind == DEPLOYMENT]) == 1, "its pods go")
        gate = rollout()["gates"][0]["message"]
        assert HOSTILE["emoji"] in gate
        assert condition(kube.get(INFERENCE_SERVICE, namespace, "magika") or {}, "Serving")["status"] == "True"
        kube.run("--namespace", namespace, "delete", "inferenceservice/magika")
        until(lambda: not children(kube, namespace), "the children are gone")
        assert "call failed" not in operator.log()
