"""Which installation serves a service: the Lease of the other one shows whether it is active."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from conch.api.kinds import ServiceKey
from conch.claims import Claims
from conch.decide import Event
from conch.observe.installation import NO_LEASE, LeaseRecord, Scope
from conch.settings import Settings
from conch.signals import Activity, Installations
from conch.write import EventWriter

ONE, OTHER = ServiceKey("demo", "one"), ServiceKey("demo", "other")
WHOLE_TEST = 20  # seconds


class Leases:
    """Leases; a renewed one has another content at each read."""

    def __init__(self) -> None:
        self.renewed: set[str] = {"a/renewed"}
        self.records: dict[str, LeaseRecord | None] = {}
        self.reads = 0
        self.woken: asyncio.Queue[ServiceKey] = asyncio.Queue()

    async def read(self, installation: str) -> LeaseRecord | None:
        self.reads += 1
        if installation in self.renewed:
            return LeaseRecord(exists=True, content=str(self.reads))
        return self.records.get(installation, NO_LEASE)


@pytest.fixture
async def leases() -> Leases:
    return Leases()


@pytest.fixture
async def installations(leases: Leases) -> AsyncIterator[Callable[..., Installations]]:
    made: list[Installations] = []

    def make(patience: float = 3600) -> Installations:
        made.append(Installations(leases.woken.put_nowait, leases.read, 0.001, patience))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def take_service(leases: Leases) -> ServiceKey:
    return await asyncio.wait_for(leases.woken.get(), WHOLE_TEST)


async def test_an_installation_whose_lease_is_renewed_is_active(
    leases: Leases, installations: Callable[..., Installations]
) -> None:
    found = installations()
    assert found.request(ONE, "a/renewed") == Activity.PENDING
    assert await take_service(leases) == ONE
    assert found.request(ONE, "a/renewed") == Activity.ACTIVE
    assert found.request(OTHER, "a/renewed") == Activity.ACTIVE


async def test_an_installation_without_a_lease_is_gone(
    leases: Leases, installations: Callable[..., Installations]
) -> None:
    found = installations()
    for name in ("a/none", "nonsense"):
        assert found.request(ONE, name) == Activity.PENDING
        assert await take_service(leases) == ONE
        assert found.request(ONE, name) == Activity.GONE


async def test_an_installation_whose_lease_is_no_longer_renewed_is_gone_after_its_duration(
    leases: Leases, installations: Callable[..., Installations]
) -> None:
    leases.records["a/late"] = LeaseRecord(exists=True, content="{}")
    patient = installations()
    patient.request(ONE, "a/late")
    await asyncio.sleep(0.05)
    assert patient.request(ONE, "a/late") == Activity.PENDING
    hasty = installations(patience=0.05)
    hasty.request(OTHER, "a/late")
    assert await take_service(leases) == OTHER
    assert hasty.request(OTHER, "a/late") == Activity.GONE


async def test_who_edits_the_annotations_of_a_lease_does_not_renew_it(
    leases: Leases, installations: Callable[..., Installations]
) -> None:
    found = installations(patience=0.05)
    for number in range(1000):
        leases.records["a/late"] = LeaseRecord(exists=True, content="{}", scope=Scope(selector=f"shard={number}"))
        activity = found.request(ONE, "a/late")
        if activity != Activity.PENDING:
            break
        await asyncio.sleep(0.001)
    assert activity == Activity.GONE


async def test_an_installation_with_an_unreadable_lease_is_never_gone(
    leases: Leases, installations: Callable[..., Installations]
) -> None:
    leases.records["a/secret"] = LeaseRecord(exists=True)
    found = installations(patience=0.001)
    found.request(ONE, "a/secret")
    assert await take_service(leases) == ONE
    await asyncio.sleep(0.05)
    assert found.request(ONE, "a/secret") == Activity.UNREADABLE
    leases.records["a/secret"] = NO_LEASE
    assert await take_service(leases) == ONE
    assert found.request(ONE, "a/secret") == Activity.GONE


async def test_a_failure_of_the_api_server_leaves_the_activity_pending(
    leases: Leases, installations: Callable[..., Installations]
) -> None:
    leases.records["a/failing"] = None
    found = installations(patience=0.001)
    found.request(ONE, "a/failing")
    await asyncio.sleep(0.05)
    assert found.request(ONE, "a/failing") == Activity.PENDING


async def test_an_installation_that_could_not_renew_its_lease_is_not_gone(
    leases: Leases, installations: Callable[..., Installations], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first read after a failure of the API server returns the same Lease as the last one before it."""

    async def read(_installation: str) -> LeaseRecord | None:
        leases.reads += 1
        if 1 < leases.reads < 60:
            return None
        return LeaseRecord(exists=True, content=str(max(leases.reads, 60) - 60))

    monkeypatch.setattr(leases, "read", read)
    found = installations(patience=0.05)
    found.request(ONE, "a/back")
    assert await take_service(leases) == ONE
    assert found.request(ONE, "a/back") == Activity.ACTIVE


async def test_the_lease_is_not_read_when_no_service_has_the_mark(
    leases: Leases, installations: Callable[..., Installations]
) -> None:
    found = installations()
    found.request(ONE, "a/renewed")
    await take_service(leases)
    found.forget(ONE)
    await asyncio.sleep(0.05)
    before = leases.reads
    await asyncio.sleep(0.05)
    assert leases.reads == before
    assert found.request(ONE, "a/renewed") == Activity.PENDING, "the last result is not kept"


def test_an_installation_is_named_by_its_lease() -> None:
    image = {"CONCH_SERVING_IMAGE": "conch/serving:1"}
    assert Settings.read(image).installation == ""
    assert (
        Settings.read({**image, "CONCH_LEASE_NAMESPACE": "conch-system"}).installation == "conch-system/conch-operator"
    )


async def test_a_service_that_the_lease_of_its_active_installation_excludes_is_ours(
    leases: Leases, installations: Callable[..., Installations]
) -> None:
    scope = Scope(frozenset({"demo"}), "!shard")
    leases.records["a/narrow"] = LeaseRecord(exists=True, content="{}", scope=scope)
    claims = Claims("a/ours", installations(), cast("EventWriter", None), lambda: 0.0)
    meta = {"uid": "1", "generation": 1, "labels": {"shard": "b"}}
    body = {"metadata": meta, "status": {"installation": "a/narrow"}}
    assert not await claims.is_ours(ONE, body), "its Lease has not been read"
    assert await take_service(leases) == ONE
    assert await claims.is_ours(ONE, body)
    assert not await claims.is_ours(ONE, {**body, "metadata": meta | {"labels": {}}}), "the Lease may be renewed"


async def test_each_edit_of_a_service_of_another_installation_writes_an_event(
    leases: Leases, installations: Callable[..., Installations]
) -> None:
    """An event expires after an hour, and the other installation owns the status."""
    notes: list[str] = []

    class Writer:
        async def record(self, _key: ServiceKey, _uid: str, story: list[Event], _moment: float) -> None:
            notes.extend(event.reason for event in story)

    claims = Claims("a/ours", installations(), cast("EventWriter", Writer()), lambda: 0.0)
    body = {"metadata": {"uid": "1", "generation": 1}, "status": {"installation": "a/renewed"}}
    assert not await claims.is_ours(ONE, body)
    await take_service(leases)
    for generation, events in ((1, 1), (1, 1), (2, 2), (2, 2)):
        edited = {**body, "metadata": {"uid": "1", "generation": generation}}
        assert not await claims.is_ours(ONE, edited)
        assert notes == ["OtherInstallation"] * events
