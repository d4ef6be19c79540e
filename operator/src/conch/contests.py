"""Contests: fields of children that another writer changes again each time Conch restores them.

A single edit is undone at once. A field to which the same value is written too often in a short time is contested: its
repairs are put off, each for twice as long as the one before, until one has held for a while. Why by field: an edit of
any other field must not wait for a contest that lasts for hours. Why by value: a value that Conch itself changes often
(the weights of revisions with unstable pods) is no contest.

In memory only, and a function of the plan, the store's versions and the time; after a restart it is counted anew.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from conch.api.kinds import HTTP_ROUTE, INFERENCE_SERVICE, SERVICE, Ref, ServiceKey
from conch.api.names import FIELD_MANAGER
from conch.api.reasons import Reason
from conch.observe.compare import Place
from conch.observe.managers import spell
from conch.plan import ABSENT, STAMP, Action, Apply, ApplyRejected, Change, Delete, Release, Step

WINDOW: Final = 60.0  # seconds in which the writes of a field are counted
WRITES: Final = 6  # of the same value in that time, one write and five repairs; then the field is contested
QUIET: Final = 30.0  # seconds that a repair has to hold before a contest is over
FIRST_DELAY: Final = 1.0  # seconds
LONGEST_DELAY: Final = 300.0  # seconds
# The same where users' requests depend on the object: a route, a Service, the state of a rollout (the status), and
# where an object is missing. A request that goes to the wrong revision is worse than a write every few seconds. It is
# also how long anything else of an object with a contested field waits at most: another field, or a new value of the
# contested one.
SHORT_DELAY: Final = 5.0
_URGENT: Final = frozenset({HTTP_ROUTE, SERVICE, INFERENCE_SERVICE})
_SOONEST: Final = 0.1  # seconds until the next reconcile, at least
_SHOWN: Final = 3  # fields in a message
_log = structlog.get_logger("conch.reconcile")


@dataclass(slots=True)
class _Field:
    """The recent writes of a field."""

    value: str  # the fingerprint of the value that was written last
    times: list[float] = field(default_factory=list)  # at which it was written, without another value in between
    delay: float = 0.0  # seconds from the last write to the next repair; 0: it is not contested

    @property
    def last_write(self) -> float:
        """When it was written last."""
        return self.times[-1]


@dataclass(frozen=True)
class Contest:
    """An object with contested fields."""

    ref: Ref
    places: tuple[Place, ...]
    deleted: bool = False  # by Conch, each time another writer creates it
    managers: tuple[str, ...] | None = None  # field managers of the other writers; None: they are not known

    @property
    def is_missing(self) -> bool:
        """Whether the other writer deletes the object: then no field manager of it is recorded."""
        return () in self.places and not self.deleted

    def to_rejection(self) -> ApplyRejected:
        """Return the message for the status."""
        names = [name for name in self.managers or () if not name.startswith(FIELD_MANAGER)]
        writer = f"Field manager {' and '.join(names)}" if names else "Another writer"
        hint = ""
        if self.deleted:
            done, undone = "creates it again", "deletes"
        elif self.is_missing:
            done, undone = "deletes it", "creates"
            hint = " The API server's audit log records who deletes it."
        else:
            fields = sorted(spell(place) for place in self.places)
            more = f" and {len(fields) - _SHOWN} more fields" if len(fields) > _SHOWN else ""
            done, undone = f"changes {', '.join(fields[:_SHOWN])}{more}", "restores"
        if not self.is_missing and self.managers is not None and not names:
            hint = " The API server records no other field manager: check for an admission webhook, or for"
            hint += " another installation of Conch."
        return ApplyRejected(
            self.ref,
            Reason.FIELD_CONTESTED,
            f"{self.ref}: {writer} {done} each time Conch {undone} it, so Conch {undone} it less and less often."
            f"{hint} Let only one of them write the object.",
            final=False,
            lasts=True,
        )


@dataclass(frozen=True)
class Deferral:
    """A plan without the deferred writes."""

    steps: tuple[Step, ...]
    contests: tuple[Contest, ...] = ()  # those to report
    wait: float | None = None  # seconds until a write is due, or a contest may be over


class Contests:
    """Counts the writes of fields, by service and object."""

    def __init__(self) -> None:
        self._known: dict[ServiceKey, dict[Ref, dict[Place, _Field]]] = {}
        self._managers: dict[tuple[ServiceKey, Ref], tuple[str, ...]] = {}
        self._touched: dict[ServiceKey, float] = {}  # when something of a service was written, the latest last

    def defer(self, key: ServiceKey, steps: Sequence[Step], now: float) -> Deferral:
        """Return the steps to write now, without those that depend on a deferred write.

        Args:
            key: the service.
            steps: its plan.
            now: seconds of a monotonic clock.
        """
        planned: dict[Ref, dict[Place, str]] = {}
        for action in (action for step in steps for action in step):
            planned.setdefault(action.ref, {}).update(action.changes)
        self._forget_old(key, planned, now)
        objects = self._known.get(key, {})
        remaining: list[Step] = []
        deferred: set[Ref] = set()
        missing: set[Ref] = set()
        waits: list[float] = []
        for step in steps:
            due = []
            for action in step:
                wait = _due_in(objects.get(action.ref, {}), action.changes, now)
                # What needs an object that exists is written all the same; nothing is deleted that it may use.
                blocked = action.needs & (deferred if isinstance(action, Delete) else missing)
                if wait <= 0 and not blocked:
                    due.append(action)
                    continue
                waits += [wait] if wait > 0 else []
                deferred.add(action.ref)
                if blocked or isinstance(action, Release) or () in dict(action.changes):
                    missing.add(action.ref)
            remaining.append(tuple(due))
        for ref, fields in objects.items():
            contested = [known for known in fields.values() if known.delay and ref not in deferred]
            waits += [
                max(known.last_write + QUIET - now, known.delay if ref in planned else 0.0) for known in contested
            ]
        next_reconcile = max(_SOONEST, min(waits)) if waits else None
        return Deferral(tuple(step for step in remaining if step), tuple(self._contests(key, planned)), next_reconcile)

    def record(self, key: ServiceKey, actions: Sequence[Action], now: float) -> None:
        """Count writes that have changed an object."""
        for action in actions:
            missing = isinstance(action, Apply) and () in dict(action.changes)
            self.record_changes(key, action.ref, action.changes, now, SHORT_DELAY if missing else LONGEST_DELAY)

    def record_changes(
        self, key: ServiceKey, ref: Ref, changes: Iterable[Change], now: float, longest: float = LONGEST_DELAY
    ) -> None:
        """Count a write that has changed fields of an object, whose repairs may be put off for `longest` seconds."""
        longest = SHORT_DELAY if ref.kind in _URGENT else longest
        self._touch(key, now)
        fields, written = self._known.setdefault(key, {}).setdefault(ref, {}), dict(changes)
        # An apply of another manifest than the last one restores nothing. A field that it adds was removed by Conch.
        is_new = STAMP in written and (STAMP not in fields or fields[STAMP].value != written[STAMP])
        for place, value in written.items():
            known = fields.get(place)
            if is_new or known is None or known.value != value:
                fields[place] = _Field(value, [now], known.delay if known else 0.0)
                continue
            is_due = now >= known.last_write + known.delay
            known.times = [*known.times, now][-WRITES:]
            if known.delay and is_due:
                known.delay = min(2 * known.delay, longest)
            elif not known.delay and len(known.times) >= WRITES:
                known.delay = FIRST_DELAY
                _log.warning("field contested", object=str(ref), field=spell(place))

    def due_in(self, key: ServiceKey, ref: Ref, changes: Iterable[Change], now: float) -> float:
        """Return the seconds until fields of an object may be written; 0 or less: they may be now."""
        return _due_in(self._known.get(key, {}).get(ref, {}), changes, now)

    def is_contested(self, key: ServiceKey, ref: Ref) -> bool:
        """Return whether any field of an object is contested."""
        return any(known.delay for known in self._known.get(key, {}).get(ref, {}).values())

    def forget(self, key: ServiceKey) -> None:
        """Forget a service."""
        for ref in self._known.pop(key, {}):
            self._managers.pop((key, ref), None)
        self._touched.pop(key, None)

    def _touch(self, key: ServiceKey, now: float) -> None:
        """Note a write to a service, and forget the services that are settled."""
        self._touched.pop(key, None)
        self._touched[key] = now
        for other, _ in list(itertools.takewhile(lambda item: now - item[1] >= WINDOW, self._touched.items())):
            contested = any(known.delay for fields in self._known.get(other, {}).values() for known in fields.values())
            if contested:
                del self._touched[other]  # its next write adds it again, and `defer` ends the contest
            else:
                self.forget(other)

    def note_managers(self, key: ServiceKey, ref: Ref, managers: Sequence[str]) -> None:
        """Record which field managers own the contested fields of an object."""
        self._managers[key, ref] = tuple(managers)

    def _contests(self, key: ServiceKey, planned: Mapping[Ref, Mapping[Place, str]]) -> Iterator[Contest]:
        """Yield the contests that can be reported: the other writers are known, or can be looked up now."""
        for ref, fields in self._known.get(key, {}).items():
            places = tuple(place for place, known in fields.items() if known.delay)
            managers = self._managers.get((key, ref))
            if places and (managers is not None or ref in planned):
                deleted = () in places and fields[()].value == ABSENT
                yield Contest(ref, places, deleted, managers)

    def _forget_old(self, key: ServiceKey, planned: Mapping[Ref, Mapping[Place, str]], now: float) -> None:
        """Drop contests that are over, and writes outside the window."""
        objects = self._known.get(key, {})
        for ref, fields in list(objects.items()):
            differing = planned.get(ref, {})
            for place, known in list(fields.items()):
                if known.delay:
                    over = place not in differing and now - known.last_write >= QUIET
                else:
                    known.times = [time for time in known.times if now - time < WINDOW]
                    over = not known.times
                if over:
                    del fields[place]
            if not any(known.delay for known in fields.values()):
                self._managers.pop((key, ref), None)
            if not fields:
                del objects[ref]
        if not objects:
            self._known.pop(key, None)


def _due_in(fields: Mapping[Place, _Field], changes: Iterable[Change], now: float) -> float:
    if not any(known.delay for known in fields.values()):
        return 0.0
    waits, has_news = [], False
    for place, value in changes:
        known = fields.get(place)
        if known is not None and known.delay and known.value == value:
            waits.append(known.last_write + known.delay - now)
        else:
            has_news = True
    if has_news:
        waits.append(max(known.last_write for known in fields.values()) + SHORT_DELAY - now)
    return min(waits, default=0.0)
