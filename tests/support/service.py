"""One InferenceService as its user sees it: status, events, pods, and a wait for each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conch.api.kinds import DEPLOYMENT, EVENT, INFERENCE_SERVICE, POD, Kind
from conch.api.names import ANNOTATION_REQUEST
from conch_contract import names
from tests.support.kube import Kube, Object
from tests.support.wait import DEADLINE, until


@dataclass(frozen=True)
class Service:
    """A name in a namespace of a cluster."""

    kube: Kube
    namespace: str
    name: str

    @property
    def body(self) -> Object:
        """The whole object; empty if there is none."""
        return self.kube.get(INFERENCE_SERVICE, self.namespace, self.name) or {}

    @property
    def status(self) -> Object:
        """Its status, where it speaks of the latest spec; empty before that."""
        body = self.body
        status: Object = body.get("status") or {}
        return status if status.get("observedGeneration") == body.get("metadata", {}).get("generation") else {}

    def condition(self, kind: str) -> Object:
        """A condition of the latest generation; empty when it is absent."""
        return next((c for c in self.status.get("conditions", ()) if c["type"] == kind), {})

    def until_condition(self, kind: str, truth: str, reason: str = "", seconds: float = DEADLINE) -> Object:
        """Wait until a condition of the latest generation has a value (and a reason); return it."""

        def look() -> Object | None:
            found = self.condition(kind)
            fits = found.get("status") == truth and reason in {"", found.get("reason")}
            return found if fits else None

        what = f"{self.namespace}/{self.name}: {kind}={truth} {reason}"
        return until(look, what, seconds, seen=lambda: self.status.get("conditions"))

    def until_ready(self, seconds: float = DEADLINE) -> Object:
        """Wait until the latest spec is served; return the status."""
        self.until_condition("Ready", "True", seconds=seconds)
        return self.status

    def until_gone(self) -> None:
        """Wait until the object is no more."""
        until(lambda: not self.body, f"{self.namespace}/{self.name} is deleted")

    def patch(self, spec: Mapping[str, Any]) -> None:
        """Change the spec, as `kubectl patch` does."""
        self.kube.patch(INFERENCE_SERVICE, self.namespace, self.name, {"spec": spec})

    def request(self, verb: str) -> None:
        """Annotate the service with a request to the rollout of the present generation, as a user does."""
        request = f"{ANNOTATION_REQUEST}={verb} {self.body['metadata']['generation']}"
        self.kube.run("annotate", "--overwrite", "isvc", self.name, f"--namespace={self.namespace}", request)

    def delete(self) -> None:
        """Delete it; its children follow by themselves."""
        self.kube.delete(INFERENCE_SERVICE, self.namespace, self.name)

    def events(self) -> list[Object]:
        """The operator's events of this very object, in the order of time."""
        uid = self.body.get("metadata", {}).get("uid")
        found = [e for e in self.kube.list(EVENT, self.namespace) if e.get("regarding", {}).get("uid") == uid]
        return sorted(found, key=lambda e: e.get("eventTime") or "")

    def until_event(self, reason: str, words: str = "") -> Object:
        """Wait for an event of that reason that holds those words; return it."""

        def look() -> Object | None:
            found = (e for e in self.events() if e["reason"] == reason and words in e.get("note", ""))
            return next(found, None)

        def seen() -> object:
            return [(e["reason"], e.get("note")) for e in self.events()]

        return until(look, f"{self.namespace}/{self.name}: event {reason} with {words!r}", seen=seen)

    def children(self, kind: Kind) -> list[Object]:
        """The objects of a kind that were made for it."""
        return self.kube.list(kind, self.namespace, f"{names.LABEL_SERVICE}={self.name}")

    def pods(self, revision: str = "") -> list[Object]:
        """Its pods that are not going."""
        selector = f"{names.LABEL_SERVICE}={self.name}"
        selector += f",{names.LABEL_REVISION}={revision}" if revision else ""
        found = self.kube.list(POD, self.namespace, selector)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready_pods(self, revision: str = "") -> list[Object]:
        """Its pods that answer requests."""
        return [pod for pod in self.pods(revision) if is_ready(pod)]

    def end_container(self, pod: str, container: str) -> None:
        """End the first process of a pod's container, which the kubelet starts again."""
        place = (f"--container={container}", f"--namespace={self.namespace}")
        self.kube.run("exec", pod, *place, "--", "sh", "-c", "kill 1")

    def deployment(self, revision: str) -> Object:
        """The Deployment of a revision; empty if there is none."""
        return self.kube.get(DEPLOYMENT, self.namespace, revision) or {}

    def settle(self, seconds: float = DEADLINE) -> Object:
        """Wait until the rollout is over: ready, and one revision only. Return the status."""
        deadline = time.monotonic() + seconds
        self.until_ready(seconds)
        return until(
            lambda: status if len((status := self.status).get("revisions", ())) == 1 else None,
            f"{self.namespace}/{self.name} has one revision",
            max(1.0, deadline - time.monotonic()),
        )


def is_ready(pod: Object) -> bool:
    """Whether a pod's Ready condition is True."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def restarts(pod: Object) -> dict[str, int]:
    """How often each of a pod's containers was started again."""
    status = pod.get("status", {})
    both = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return {container["name"]: container.get("restartCount", 0) for container in both}
