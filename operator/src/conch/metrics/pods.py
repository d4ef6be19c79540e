"""Cache of the serving pods, with the fields that the metrics API needs. A watch fills it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conch.api.names import ANNOTATION_MODEL
from conch.observe.fields import number
from conch_contract import names


@dataclass(frozen=True)
class ServingPod:
    """One pod that serves a model."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    ip: str
    model: str  # Triton's name of the model that clients request
    ready: bool  # the metrics of other pods are not reported
    version: int  # resourceVersion

    @property
    def service(self) -> str:
        """The InferenceService that it serves."""
        return self.labels.get(names.LABEL_SERVICE, "")

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Return the pod of a Kubernetes object."""
        meta, status = body["metadata"], body.get("status") or {}
        conditions = status.get("conditions") or ()
        return cls(
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
            labels=dict(meta.get("labels") or {}),
            ip=status.get("podIP", ""),
            model=(meta.get("annotations") or {}).get(ANNOTATION_MODEL, ""),
            ready=bool(status.get("podIP"))
            and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
            and "deletionTimestamp" not in meta,
            version=number(meta.get("resourceVersion")),
        )


class Pods:
    """All serving pods, without pods of Jobs, which no autoscaler scales."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, dict[str, ServingPod]] = {}

    def put(self, body: Mapping[str, Any]) -> None:
        """Add or replace a pod."""
        pod = ServingPod.parse(body)
        if names.LABEL_REVISION in pod.labels and pod.service:
            self._by_namespace.setdefault(pod.namespace, {})[pod.uid] = pod
        else:
            self.discard(body)

    def discard(self, body: Mapping[str, Any]) -> None:
        """Remove a pod."""
        meta = body["metadata"]
        pods = self._by_namespace.get(meta["namespace"], {})
        pods.pop(meta["uid"], None)
        if not pods:
            self._by_namespace.pop(meta["namespace"], None)

    def find(self, namespace: str, is_selected: Callable[[ServingPod], bool]) -> list[ServingPod]:
        """Return the pods of a namespace that a selector matches, sorted by name."""
        return sorted(filter(is_selected, self._by_namespace.get(namespace, {}).values()), key=lambda pod: pod.name)

    def namespaces(self) -> list[str]:
        """Return the namespaces with serving pods."""
        return sorted(self._by_namespace)

    def retain(self, namespace: str, uids: frozenset[str], version: int) -> None:
        """Remove the pods that a list does not have: of a namespace, or of all if it is empty.

        Args:
            namespace: of the list.
            uids: of the pods in the list.
            version: of the list; what is newer is not in it.
        """
        for name in [name for name in self._by_namespace if namespace in {"", name}]:
            pods = self._by_namespace[name]
            retained = {uid: pod for uid, pod in pods.items() if uid in uids or pod.version > version}
            self._by_namespace |= {name: retained}
            if not retained:
                del self._by_namespace[name]

    def uids(self) -> frozenset[str]:
        """Return the uids of all pods."""
        return frozenset(uid for pods in self._by_namespace.values() for uid in pods)
