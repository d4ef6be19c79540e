"""The serving pods of the cluster, as far as a question can be about them. Fed by a watch."""

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
    model: str  # Triton's name of the model that clients ask for
    ready: bool  # one that is not tells nothing that an autoscaler should act on
    version: int  # resourceVersion

    @property
    def service(self) -> str:
        """The InferenceService that it serves."""
        return self.labels.get(names.LABEL_SERVICE, "")

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read a pod as the API server tells it."""
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
    """All serving pods. The pods of Jobs are not among them: no autoscaler owns their number."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, dict[str, ServingPod]] = {}

    def put(self, body: Mapping[str, Any]) -> None:
        """Take in a pod that came or changed."""
        pod = ServingPod.parse(body)
        if names.LABEL_REVISION in pod.labels and pod.service:
            self._by_namespace.setdefault(pod.namespace, {})[pod.uid] = pod
        else:
            self.discard(body)

    def discard(self, body: Mapping[str, Any]) -> None:
        """Forget a pod that is gone."""
        meta = body["metadata"]
        of = self._by_namespace.get(meta["namespace"], {})
        of.pop(meta["uid"], None)
        if not of:
            self._by_namespace.pop(meta["namespace"], None)

    def find(self, namespace: str, wanted: Callable[[ServingPod], bool]) -> list[ServingPod]:
        """Return the pods of a namespace that are wanted, by name."""
        return sorted(filter(wanted, self._by_namespace.get(namespace, {}).values()), key=lambda pod: pod.name)

    def namespaces(self) -> list[str]:
        """Return the namespaces that have serving pods."""
        return sorted(self._by_namespace)

    def retain(self, namespace: str, uids: frozenset[str], version: int) -> None:
        """Forget the pods that a list does not have: of a namespace, or of all if it is empty.

        Args:
            namespace: of the list.
            uids: of the pods in the list.
            version: of the list; what is newer is not in it.
        """
        for name in [name for name in self._by_namespace if namespace in {"", name}]:
            of = self._by_namespace[name]
            kept = {uid: pod for uid, pod in of.items() if uid in uids or pod.version > version}
            self._by_namespace |= {name: kept}
            if not kept:
                del self._by_namespace[name]

    def uids(self) -> frozenset[str]:
        """Return the uids of all pods."""
        return frozenset(uid for of in self._by_namespace.values() for uid in of)
