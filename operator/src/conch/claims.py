"""Which installation of Conch serves a service: the one that its status names, while that one acts.

Two operators that both write a service undo each other's writes. So each names itself in the status that it writes
anyway, and leaves alone what another one serves. Two that meet at a new service may both write it once: of their
statuses one comes last, and the other operator yields. No change of the name reaches a pod.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from conch.api.kinds import ServiceKey
from conch.api.names import PLURAL
from conch.decide import Event
from conch.observe.fields import mapping, text
from conch.signals import Activity, Installations
from conch.write import EventWriter


@dataclass(frozen=True)
class Claims:
    """Knows which services are those of this installation."""

    installation: str | None  # None: no Lease elects the operator, and it names itself nowhere
    installations: Installations
    event_writer: EventWriter
    clock: Callable[[], float]
    yielded: dict[ServiceKey, tuple[str, int]] = field(default_factory=dict)
    """To which installation, at which generation of the spec, as an event has reported."""

    async def is_ours(self, key: ServiceKey, body: Mapping[str, Any]) -> bool:
        """Return whether this installation may write a service; an event reports if another one serves it."""
        owner = text(mapping(body.get("status")).get("installation"))
        if owner not in {"", self.installation}:
            activity = self.installations.request(key, owner)
            if activity != Activity.GONE:
                await self._report(key, body["metadata"], owner, activity)
                return False
        self.forget(key)
        return True

    def forget(self, key: ServiceKey) -> None:
        """Forget a service that is gone, or that no other installation serves."""
        self.installations.forget(key)
        self.yielded.pop(key, None)

    async def _report(self, key: ServiceKey, meta: Mapping[str, Any], owner: str, activity: Activity) -> None:
        """Report in an event that another installation serves a service: the status is that one's to write.

        Once, and again after each edit of the spec: events expire, and a user who edits has to see why nothing happens.
        """
        known = (owner, meta["generation"])
        if activity == Activity.PENDING or self.yielded.get(key) == known:
            return
        self.yielded[key] = known
        name = f"Installation {self.installation}" if self.installation else "An operator without a Lease"
        if activity == Activity.ACTIVE:
            why = (
                f"{owner}, another installation of Conch, serves it and is active. Give each installation namespaces of"
                " its own (value watchNamespaces of the chart), or uninstall one of them."
            )
        else:
            why = (
                f"its status names {owner}, another installation of Conch, whose Lease this one may not read. If that"
                f" installation is gone, remove the name: kubectl patch {PLURAL}.conch.dev {key.name} --namespace"
                f' {key.namespace} --subresource status --type merge --patch \'{{"status":{{"installation":null}}}}\''
            )
        event = Event("Warning", "OtherInstallation", "Yield", f"{name} does not write this service: {why}")
        await self.event_writer.tell(key, meta["uid"], [event], self.clock())
