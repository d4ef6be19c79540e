"""Claims of installations: a service belongs to the installation of Conch that its status names, while that serves it.

It does not when it is gone, or when the namespaces and the label selector of its Lease exclude the service.

Two operators that both write a service undo each other's writes. So each names itself in the status, and does not
write a service that names another one. Two that meet at a new service may both write it once: of their
statuses the last one counts, and the other operator yields. No change of the name reaches a pod.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from conch.api.kinds import ServiceKey
from conch.api.names import PLURAL
from conch.api.reasons import Reason
from conch.decide import Event
from conch.observe.fields import labels_of, mapping, text
from conch.signals import Activity, Installations
from conch.write import EventWriter


@dataclass(frozen=True)
class Claims:
    """The services of this installation, and those that belong to another one."""

    installation: str | None  # None: the operator has no Lease, and its statuses name no installation
    installations: Installations
    event_writer: EventWriter
    clock: Callable[[], float]
    reports: dict[ServiceKey, tuple[str, int]] = field(default_factory=dict)
    """The installation and the generation of the spec that an event has reported, by service."""

    async def is_ours(self, key: ServiceKey, body: Mapping[str, Any]) -> bool:
        """Return whether this installation may write a service; an event reports if another one serves it."""
        owner = text(mapping(body.get("status")).get("installation"))
        if owner not in {"", self.installation}:
            activity = self.installations.request(key, owner)
            serves = self.installations.get_scope(owner).covers(key.namespace, labels_of(body))
            if activity != Activity.GONE and serves:
                await self._report(key, body["metadata"], owner, activity)
                return False
        self.forget(key)
        return True

    def forget(self, key: ServiceKey) -> None:
        """Forget a service that is gone, or that no other installation serves."""
        self.installations.forget(key)
        self.reports.pop(key, None)

    async def _report(self, key: ServiceKey, meta: Mapping[str, Any], owner: str, activity: Activity) -> None:
        """Report in an event that another installation serves a service: the status is that one's to write.

        Once, and again after each change of the spec: events expire, and the user has to see why nothing happens.
        """
        known = (owner, meta["generation"])
        if activity == Activity.PENDING or self.reports.get(key) == known:
            return
        self.reports[key] = known
        name = f"Installation {self.installation}" if self.installation else "An operator without a Lease"
        if activity == Activity.ACTIVE:
            why = (
                f"{owner}, another installation of Conch, serves it and is active. Give each installation namespaces"
                " (value watchNamespaces of the chart) or labels (watchLabelSelector) of its own, or uninstall one."
            )
        else:
            why = (
                f"its status names {owner}, another installation of Conch, whose Lease this one may not read. If that"
                f" installation is gone, remove the name: kubectl patch {PLURAL}.conch.dev {key.name} --namespace"
                f' {key.namespace} --subresource status --type merge --patch \'{{"status":{{"installation":null}}}}\''
            )
        event = Event("Warning", Reason.OTHER_INSTALLATION, "Yield", f"{name} does not write this service: {why}")
        await self.event_writer.record(key, meta["uid"], [event], self.clock())
