"""Which installation of Conch serves a service: the one that its status names, while that one acts.

Two operators that both write a service undo each other's writes. So each marks what it serves before it writes
anything else of it. The mark is in the status, not on the children: it is one write for a service, it can be
conditional, and no change of it reaches a pod.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from conch.api.kinds import INFERENCE_SERVICE, Ref, ServiceKey
from conch.api.names import PLURAL
from conch.contests import Contests
from conch.decide import Event
from conch.observe import Store
from conch.observe.fields import mapping, text
from conch.plan import Change
from conch.signals import Activity, Installations
from conch.write import CallError, EventWriter, Writer

_FIELD: Final = "installation"
_CONFLICT: Final = 409  # HTTP status


@dataclass(frozen=True)
class Claim:
    """Whether a service is this installation's, and otherwise in how many seconds to look again; None: by an event."""

    is_ours: bool
    wait: float | None = None


@dataclass(frozen=True)
class Claims:
    """Marks services as those of one installation."""

    installation: str  # empty: no Lease elects the operator, and it marks no service
    installations: Installations
    store: Store
    writer: Writer
    event_writer: EventWriter
    contests: Contests
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    yielded: dict[ServiceKey, str] = field(default_factory=dict)  # to which installation, as an event has reported

    async def claim(self, key: ServiceKey, body: Mapping[str, Any]) -> Claim:
        """Mark a service, unless another installation that has marked it acts. Nothing else is written before.

        Raises:
            CallError: the mark cannot be written; try again later.
        """
        meta, status = body["metadata"], mapping(body.get("status"))
        owner = text(status.get(_FIELD))
        if owner not in {"", self.installation}:
            activity = self.installations.ask(key, owner)
            if activity != Activity.GONE:
                await self._report(key, meta["uid"], owner, activity)
                return Claim(is_ours=False)
        self.forget(key)
        if owner == self.installation:
            return Claim(is_ours=True)
        rest = {name: value for name, value in status.items() if name != _FIELD}
        return await self._mark(key, meta["uid"], rest | ({_FIELD: self.installation} if self.installation else {}))

    def forget(self, key: ServiceKey) -> None:
        """Forget a service that is gone, or that no other installation serves."""
        self.installations.forget(key)
        self.yielded.pop(key, None)

    async def _mark(self, key: ServiceKey, uid: str, status: Mapping[str, Any]) -> Claim:
        """Write the mark, if nobody has written the service since it was read."""
        ref = Ref(INFERENCE_SERVICE, key.name)
        change: Change = (("f:status", f"f:{_FIELD}"), self.installation)
        wait = self.contests.due_in(key, ref, [change], self.monotonic())
        if wait > 0:
            return Claim(is_ours=False, wait=wait)
        try:
            is_ours = await self.writer.write_status(key, uid, status, version=self.store.version(key, ref))
        except CallError as error:
            if error.code == _CONFLICT:
                return Claim(is_ours=False)  # another write came first, and its watch event brings the service back
            raise
        self.contests.record_changes(key, ref, [change], self.monotonic())
        return Claim(is_ours)

    async def _report(self, key: ServiceKey, uid: str, owner: str, activity: Activity) -> None:
        """Report once, in an event, that another installation serves a service: the status is that one's to write."""
        if activity == Activity.PENDING or self.yielded.get(key) == owner:
            return
        self.yielded[key] = owner
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
        await self.event_writer.tell(key, uid, [event], self.clock())
