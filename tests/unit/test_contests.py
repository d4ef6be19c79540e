"""Contests: immediate writes, deferred writes, their delays, and the end of a contest."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from conch.api.kinds import AUTOSCALER, CONFIG_MAP, DEPLOYMENT, HTTP_ROUTE, SERVICE, Ref, ServiceKey
from conch.contests import FIRST_DELAY, LONGEST_DELAY, QUIET, SHORT_DELAY, WINDOW, WRITES, Contest, Contests
from conch.observe import SignaturePolicies, Store
from conch.observe.managers import find_managers
from conch.plan import ABSENT, Apply, Delete
from conch.reconcile import Reconciler
from conch.signals import Agents, Capacities, Collector, Warnings
from tests.unit.simulation import build_manifest

KEY = ServiceKey("demo", "magika")
AUTOSCALED = Ref(AUTOSCALER, "magika-1")
FLOOR, CEILING = ("f:spec", "f:minReplicas"), ("f:spec", "f:maxReplicas")


def build_repair(ref: Ref = AUTOSCALED, needs: frozenset[Ref] = frozenset(), **values: str) -> Apply:
    """An apply that changes these fields of spec."""
    changes = tuple((("f:spec", f"f:{name}"), value) for name, value in values.items())
    return Apply(ref, {}, new=False, needs=needs, changes=changes)


class Operator:
    """A clock, and the writes that an operator makes."""

    def __init__(self) -> None:
        self.contests = Contests()
        self.now = 0.0

    def write(self, *actions: Apply | Delete) -> bool:
        """Make the writes that are due, one step for each action; return whether there were any."""
        deferral = self.contests.defer(KEY, [(action,) for action in actions], self.now)
        self.contests.record(KEY, [action for step in deferral.steps for action in step], self.now)
        return bool(deferral.steps)

    def find_contest(self) -> list[str]:
        deferral = self.contests.defer(KEY, [], self.now)
        return [str(contest.ref) for contest in deferral.contests]

    def fight(self, action: Apply | Delete, seconds: float, every: float = 0.1) -> list[float]:
        """Let another writer undo each write at once; return the times of the writes."""
        written, end = [], self.now + seconds
        while self.now < end:
            if self.write(action):
                written.append(self.now)
            self.now += every
        return written


def test_repairs_are_made_at_once_then_after_longer_and_longer_delays() -> None:
    operator = Operator()
    written = operator.fight(build_repair(minReplicas="1"), 3600, every=0.05)
    assert written[WRITES - 1] < 1
    delays = [round(after - before) for before, after in itertools.pairwise(written[WRITES - 1 :])]
    assert delays[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert set(delays[9:]) == {round(LONGEST_DELAY)}


def test_few_edits_and_slow_ones_are_no_contest() -> None:
    operator = Operator()
    assert all(operator.write(build_repair(minReplicas="1")) for _ in range(WRITES - 1))
    operator.now += WINDOW
    every = WINDOW / (WRITES - 2)
    assert len(operator.fight(build_repair(minReplicas="1"), 20 * every, every)) == 20
    assert operator.find_contest() == []


def test_values_that_conch_changes_are_no_contest() -> None:
    operator = Operator()
    assert all(operator.write(build_repair(Ref(HTTP_ROUTE, "magika"), rules=str(weight))) for weight in range(100))
    assert operator.find_contest() == []
    to_and_fro = [build_repair(Ref(HTTP_ROUTE, "magika"), rules=str(number % 2)) for number in range(100)]
    assert all(operator.write(each) for each in to_and_fro), "a pod that is ready, and not, and ready again"
    assert operator.find_contest() == []


def test_other_fields_and_new_values_of_a_contested_object_wait_for_seconds_only() -> None:
    operator = Operator()
    operator.fight(build_repair(minReplicas="1"), 100)
    assert not operator.write(build_repair(minReplicas="1"))
    operator.now += SHORT_DELAY
    assert operator.write(build_repair(minReplicas="1", maxReplicas="3"))
    assert not operator.write(build_repair(minReplicas="2"))
    operator.now += SHORT_DELAY
    assert operator.write(build_repair(minReplicas="2"))
    assert operator.write(build_repair(Ref(DEPLOYMENT, "magika-1"), template="x")), "other objects do not wait"


def test_routes_services_and_missing_objects_wait_for_seconds_only() -> None:
    for action in (
        build_repair(Ref(HTTP_ROUTE, "magika"), rules="1"),
        build_repair(Ref(SERVICE, "magika"), selector="1"),
        Apply(Ref(DEPLOYMENT, "magika-1"), {}, new=True),
    ):
        written = Operator().fight(action, 600)
        assert max(after - before for before, after in itertools.pairwise(written)) <= SHORT_DELAY + 0.2


def test_a_contest_is_over_when_a_repair_has_held() -> None:
    operator = Operator()
    operator.fight(build_repair(minReplicas="1"), 20)
    operator.contests.note_managers(KEY, AUTOSCALED, ["gitops"])
    while not operator.write(build_repair(minReplicas="1")):
        operator.now += 1
    operator.now += QUIET - 1
    assert operator.find_contest() == ["HorizontalPodAutoscaler/magika-1"]
    operator.now += 1
    assert operator.find_contest() == []
    assert operator.write(build_repair(minReplicas="1")), "an edit is undone at once again"


def test_a_deletion_waits_while_what_may_use_the_object_is_put_off() -> None:
    operator, used = Operator(), Ref(CONFIG_MAP, "magika-1")
    operator.fight(build_repair(minReplicas="1"), 20)
    user, unused = build_repair(minReplicas="1"), Delete(used, "uid", frozenset({AUTOSCALED}))
    dependant = build_repair(Ref(DEPLOYMENT, "magika-1"), frozenset({AUTOSCALED}), template="x")
    deferral = operator.contests.defer(KEY, [(user,), (dependant,), (unused,)], operator.now)
    assert deferral.steps == ((dependant,),)
    assert deferral.wait is not None
    assert 0 < deferral.wait <= LONGEST_DELAY


def test_messages_name_the_object_the_field_and_the_other_writer() -> None:
    for action, managers, words in (
        (
            build_repair(minReplicas="1"),
            ["gitops"],
            "Field manager gitops changes .spec.minReplicas each time Conch restores",
        ),
        (
            build_repair(minReplicas="1"),
            ["conch"],
            "check for an admission webhook, or for another installation of Conch",
        ),
        (Delete(AUTOSCALED, "uid"), ["argo"], "Field manager argo creates it again each time Conch deletes it"),
        (Apply(AUTOSCALED, {}, new=True), [], "Another writer deletes it each time Conch creates it"),
        (Apply(AUTOSCALED, {}, new=True), [], "audit log records who deletes it. Let only"),
    ):
        operator = Operator()
        operator.fight(action, 20)
        operator.contests.note_managers(KEY, AUTOSCALED, managers)
        [contest] = operator.contests.defer(KEY, [(action,)], operator.now).contests
        rejection = contest.to_rejection()
        assert rejection.message.startswith("HorizontalPodAutoscaler/magika-1: ")
        assert words in rejection.message
        assert (rejection.final, rejection.lasts) == (False, True)
    assert ABSENT in dict(Delete(AUTOSCALED, "uid").changes).values()


def test_settled_services_are_forgotten() -> None:
    operator = Operator()
    for number in range(100):
        operator.contests.record(ServiceKey("demo", str(number)), [build_repair(minReplicas="1")], operator.now)
    operator.now += WINDOW
    operator.contests.record(KEY, [build_repair(minReplicas="1")], operator.now)
    assert list(operator.contests._known) == [KEY]
    operator.contests.forget(KEY)
    assert not operator.contests._known


def test_managers_are_those_that_own_the_field_or_the_list_around_it() -> None:
    entries = [
        {"manager": "conch", "fieldsV1": {"f:spec": {"f:maxReplicas": {}}}},
        {"manager": "gitops", "fieldsV1": {"f:spec": {"f:minReplicas": {}, "f:rules": {}}}},
        {"manager": "broken", "fieldsV1": None},
    ]
    meta = {"managedFields": entries}
    assert find_managers(meta, FLOOR) == ("gitops",)
    assert find_managers(meta, CEILING) == ("conch",)
    assert find_managers(meta, ("f:spec", "f:rules", "f:matches")) == ("gitops",)
    assert find_managers({}, FLOOR) == ()


class Managed:
    """The field managers of an object: a request to the API server, and its cached response."""

    def __init__(self, *entries: dict[str, Any], fails: bool = False) -> None:
        self.contests, self.writer = Contests(), self
        self.answer: dict[str, Any] | None = None if fails else {"managedFields": entries}
        self.reads = 0

    async def metadata(self, _key: ServiceKey, _ref: Ref) -> dict[str, Any] | None:
        self.reads += 1
        return self.answer

    async def name(self, action: Apply | Delete) -> Contest:
        operator = Operator()
        operator.fight(action, 20)
        [contest] = operator.contests.defer(KEY, [(action,)], operator.now).contests
        return await Reconciler._name_managers(cast("Reconciler", self), KEY, contest)


async def test_the_writer_that_recreates_a_deleted_object_is_read_from_the_whole_object() -> None:
    spec: dict[str, Any] = {"f:spec": {"f:minReplicas": {}}}
    status = {"manager": "kube-controller-manager", "subresource": "status", "fieldsV1": {"f:status": {}}}
    managed = Managed({"manager": "gitops", "fieldsV1": spec}, status)
    contest = await managed.name(Delete(AUTOSCALED, "uid"))
    assert contest.managers == ("gitops",)
    assert "Field manager gitops creates it again" in contest.to_rejection().message


async def test_field_managers_that_could_not_be_read_are_read_again() -> None:
    managed = Managed(fails=True)
    contest = await managed.name(build_repair(minReplicas="1"))
    assert "Another writer changes .spec.minReplicas" in contest.to_rejection().message
    assert "records no other" not in contest.to_rejection().message, "its field managers are not read"
    assert not managed.contests._managers


async def test_no_field_managers_are_read_of_an_object_that_is_deleted() -> None:
    managed = Managed(fails=True)
    contest = await managed.name(Apply(AUTOSCALED, {}, new=True))
    assert (contest.managers, managed.reads) == ((), 0)


class Overwritten:
    """A service whose spec is unreadable, and another writer that empties the status each time Conch writes it."""

    def __init__(self) -> None:
        self.now, self.writes, self.store, nothing = 0.0, 0, Store(), cast("Any", None)
        self.body = build_manifest(uri=cast("Any", 7))
        self.lists = asyncio.Event()  # set whenever events are listed
        self.agents, self.collector = Agents(self.queue), Collector(self.queue)
        self.warnings = Warnings(self.queue, self.read_warning)
        self.reconcile = Reconciler(
            store=self.store,
            gateways=None,
            policies=SignaturePolicies(""),
            agents=self.agents,
            collector=self.collector,
            capacities=Capacities(self.queue, nothing),
            warnings=self.warnings,
            claims=cast("Any", self),
            contests=Contests(),
            writer=cast("Any", self),
            event_writer=cast("Any", self),
            defaults=nothing,
            metrics_api="builtin",
            prometheus="",
            clock=lambda: 0.0,
            monotonic=lambda: self.now,
        )
        self.put({})

    installation = "conch-system/conch-operator"

    def queue(self, _key: ServiceKey) -> None:
        """Queue nothing: the test reconciles."""

    async def read_warning(self, _namespace: str, _uid: str) -> None:
        self.lists.set()

    async def close(self) -> None:
        for signal in (self.agents, self.collector, self.warnings):
            await signal.close()

    async def is_ours(self, _key: ServiceKey, _body: object) -> bool:
        return True

    async def record(self, *_args: object) -> None:
        return None

    async def write_status(self, _key: ServiceKey, _uid: str, status: dict[str, Any]) -> bool:
        self.writes += 1
        self.put(status)
        return True

    def put(self, status: dict[str, Any]) -> None:
        version = str(int(self.body["metadata"].get("resourceVersion", 0)) + 1)
        self.body = {**self.body, "metadata": {**self.body["metadata"], "resourceVersion": version}, "status": status}
        self.store.put(self.body)


@pytest.fixture
async def story() -> AsyncIterator[Overwritten]:
    story = Overwritten()
    yield story
    await story.close()


async def test_a_status_that_is_put_off_is_written_when_its_delay_is_over(story: Overwritten) -> None:
    """No event arrives: the other writer makes no further write."""
    for _ in range(WRITES):
        assert (await story.reconcile(KEY)).wait in {None, FIRST_DELAY}
        story.put({})
    outcome = await story.reconcile(KEY)
    assert story.writes == WRITES
    assert outcome.wait == FIRST_DELAY
    story.now += FIRST_DELAY
    await story.reconcile(KEY)
    assert story.writes == WRITES + 1


async def test_nothing_is_read_in_the_background_for_a_service_that_cannot_be_read(story: Overwritten) -> None:
    """Its pods may be gone, and other pods may have their addresses: no reconcile names them."""
    story.warnings.request(KEY, {"stuck": 0.001})
    for _ in range(3):
        await asyncio.wait_for(story.lists.wait(), 20)
        story.lists.clear()
    await story.reconcile(KEY)
    story.lists.clear()
    await asyncio.sleep(0.02)
    assert not story.lists.is_set()
