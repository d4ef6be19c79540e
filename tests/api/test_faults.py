"""The operator behind an API server whose answers and watches fail: the same objects in the end, and no orphan."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from sysconfig import get_config_var
from typing import Any

import pytest

from conch.api.kinds import CONFIG_MAP, DEPLOYMENT, INFERENCE_SERVICE, Ref
from conch.write import Server
from conch_contract import names
from tests.api.operator import WRITES, Audit, Operator, another_namespace, are_ready, children, essence, isvc
from tests.cluster import Cluster, packages
from tests.support.faults import (
    LATE,
    LOST,
    Faults,
    Mangle,
    anything,
    broken,
    cut,
    doubled,
    expired,
    half_open,
    reordered,
    repeated_late,
)
from tests.support.kube import Kube, KubectlError, Object
from tests.support.wait import until

SECONDS = 240.0  # a watch without any byte is given up after 90
pytestmark = pytest.mark.timeout(600)
WATCHES: dict[str, Mangle] = {
    "events come twice": doubled,
    "events come in another order": reordered,
    "the connection ends before an event": cut,
    "the version of the watch is forgotten": expired,
    "an event comes half": broken,
    "the connection is half-open": half_open,
}
ANSWERS: dict[str, tuple[int, ...]] = {
    "conflict": (409,),
    "too many requests": (429,),
    "an internal error": (500,),
    "no answer": (LOST,),
}


def rollout(uri: str, pause: str) -> Object:
    """Return a service whose change passes a step, without a gateway."""
    body = isvc(uri=uri, minReplicas=2)
    body["spec"]["rollout"] = {"steps": [{"weight": 50}, {"pause": pause}]}
    body["spec"]["traffic"] = {"split": "Replicas"}
    return body


@dataclass
class Story:
    """Create a service, roll out a change and delete it."""

    cluster: Cluster
    kube: Kube
    namespace: str
    log: Path
    pause: str = "1s"  # of the rollout
    meanwhile: Callable[[], object] = lambda: None  # called when the rollout has just begun

    def operator(self, **env: str) -> Operator:
        """Return an operator that writes into the log of the story."""
        return Operator(self.cluster, self.log, **env)

    def play(self, operators: AbstractContextManager[object]) -> dict[Ref, Object]:
        """Play it beside some operators; return the objects that there were before the end."""
        with operators:
            for uri, meanwhile in (("s3://models/one", lambda: None), ("s3://models/two", self.meanwhile)):
                self.kube.apply(rollout(uri, self.pause), self.namespace)
                meanwhile()
                until(are_ready(self.kube, self.namespace), f"{uri} is Ready", SECONDS, seen=self.log.read_text)
                until(lambda: len(self.kube.list(DEPLOYMENT, self.namespace)) == 1, "one Deployment is left", SECONDS)
            final = essence(self.kube, self.namespace)
            self.kube.run("--namespace", self.namespace, "delete", "isvc", "--all")
            until(lambda: not children(self.kube, self.namespace), "the children are gone", SECONDS)
            assert "Traceback" not in self.log.read_text(), self.log.read_text()[-5000:]
        return final


@pytest.fixture
def story(cluster: Cluster, kube: Kube, namespace: str, log: Path) -> Story:
    return Story(cluster, kube, namespace, log)


@pytest.fixture
def faults(cluster: Cluster, tmp_path: Path) -> Iterator[Faults]:
    """A proxy before the API server, with a seed of its own."""
    with Faults(cluster.kubeconfig, tmp_path, int(time.time())) as faults:
        yield faults


def check(story: Story, faults: Faults, operators: AbstractContextManager[object] | None = None) -> None:
    """Compare the story's objects with those without a fault."""
    disturbed = story.play(operators or running(story.operator(KUBECONFIG=str(faults.kubeconfig))))
    assert faults.faults, "nothing went wrong: the test shows nothing"
    undisturbed = replace(story, meanwhile=lambda: None).play(running(story.operator()))
    assert disturbed == undisturbed, f"seed {faults.seed}: {faults.faults}"


@contextmanager
def running(operator: Operator) -> Iterator[None]:
    """An operator that runs until the block ends."""
    with operator:
        yield
        assert operator.process is not None
        assert operator.process.poll() is None, operator.log()[-3000:]


def test_watches_and_requests_that_fail_change_no_object(story: Story, faults: Faults) -> None:
    faults.mangle, faults.codes, faults.share = anything, (409, 429, 500, LOST), 0.2
    check(story, faults)


@pytest.mark.long
@pytest.mark.parametrize("mangle", WATCHES.values(), ids=WATCHES)
def test_a_watch_that_fails_changes_no_object(story: Story, faults: Faults, mangle: Mangle) -> None:
    faults.mangle = mangle
    check(story, faults)


@pytest.mark.long
@pytest.mark.parametrize("codes", ANSWERS.values(), ids=ANSWERS)
def test_a_fifth_of_all_requests_that_fails_changes_no_object(
    story: Story, faults: Faults, codes: tuple[int, ...]
) -> None:
    faults.codes, faults.share = codes, 0.2
    check(story, faults)


@pytest.mark.long
@pytest.mark.parametrize("seconds", [5, 30, 120])
def test_an_api_server_that_is_away_for_a_while_changes_no_object(story: Story, faults: Faults, seconds: int) -> None:
    faults.absence = seconds
    check(story, faults)


@pytest.mark.long
def test_thousands_of_deletions_in_another_namespace_change_no_object(
    story: Story, faults: Faults, kube: Kube, cluster: Cluster
) -> None:
    """The watch repeats a ConfigMap of the old revision, and the operator does not delete it once more."""
    faults.mangle, audit = repeated_late, Audit(cluster)

    def config_maps() -> set[str]:
        return {body["metadata"]["name"] for body in kube.list(CONFIG_MAP, story.namespace, names.LABEL_SERVICE)}

    def delete_thousands() -> None:
        old = config_maps()
        until(lambda: (there := config_maps()) and there.isdisjoint(old), "the old revision has gone", SECONDS)
        asyncio.run(create_and_delete(cluster, busy, LATE + 400))
        until(lambda: faults.faults["repeated late"], "the ConfigMap comes once more", SECONDS)

    with another_namespace(kube, f"{story.namespace}-busy") as busy:
        story.meanwhile, story.pause = delete_thousands, "10s"  # the old revision is there when it begins
        check(story, faults)
    deletions = Counter(call for call in audit.writes(story.namespace) if call.startswith("delete configmaps"))
    assert deletions
    assert max(deletions.values()) <= 2, "one for each of the two times that the story is played"


async def create_and_delete(cluster: Cluster, namespace: str, count: int) -> None:
    """Create and delete ConfigMaps with the label of a service."""
    meta = {"namespace": namespace, "labels": {names.LABEL_SERVICE: "magika"}}
    async with await Server.connect(str(cluster.kubeconfig), connections=16) as server:

        async def one(number: int) -> None:
            name = f"config-{number}"
            await server.create(
                CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**meta, "name": name}}
            )
            await server.delete(namespace, Ref(CONFIG_MAP, name))

        for batch in range(0, count, 200):
            await asyncio.gather(*(one(batch + number) for number in range(200)))


@pytest.mark.long
def test_an_operator_that_is_killed_after_every_write_makes_the_same_objects(story: Story, faults: Faults) -> None:
    operator = story.operator(KUBECONFIG=str(faults.kubeconfig))

    def kill() -> None:
        faults.faults["killed"] += operator.process is not None and operator.process.poll() is None
        operator.send_signal(signal.SIGKILL)

    faults.on_write = kill
    check(story, faults, restarted(operator))
    assert faults.faults["killed"] > 10, faults.faults


@pytest.mark.long
def test_an_etcd_that_is_stopped_for_a_minute_changes_no_object(story: Story, faults: Faults) -> None:
    def is_ready() -> bool:
        try:
            return story.kube.run("get", "--raw=/readyz") == "ok"
        except KubectlError:
            return False

    def stop_etcd() -> None:
        before = faults.writes
        until(lambda: faults.writes > before + 3, "the operator writes")
        faults.faults["etcd stopped"] += 1
        story.cluster.stop_component("etcd", grace=0)
        try:
            time.sleep(60)
        finally:
            story.cluster.start_component("etcd")
        until(is_ready, "the API server answers again")
        story.cluster.stop_component("kwok")  # it does not watch again after an etcd was away
        story.cluster.start_component("kwok")

    story.meanwhile = stop_etcd
    check(story, faults)


@pytest.mark.long
def test_one_of_two_replicas_that_are_stopped_in_turn_writes_at_every_moment(story: Story, tmp_path: Path) -> None:
    audit, seed = Audit(story.cluster), int(time.time())
    with (
        Faults(story.cluster.kubeconfig, tmp_path, seed, "first") as first,
        Faults(story.cluster.kubeconfig, tmp_path, seed + 1, "second") as second,
    ):
        check(story, first, replicas(story, first, second))
        assert first.faults["stopped"] + second.faults["stopped"] > 1
    moments = sorted(turn for call in audit.calls() if (turn := turn_of(call)))
    holder, turns = "", 0
    for moment, what, client in moments:
        if what == "lease":
            turns += client != holder
            holder = client
        else:
            assert client == holder, f"{client} wrote at {moment}, after {holder} had written the Lease"
    assert turns > 1, turns


def turn_of(call: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return when a replica held the Lease by a write of it, or wrote another object, and its name; None: neither.

    A Lease is held since the answer; another write counts from its arrival.
    """
    client = call["userAgent"].split()[-1]
    if client not in {"first", "second"} or call["verb"] not in WRITES or "dryRun" in call["requestURI"]:
        return None
    if call["objectRef"].get("resource") == "leases":
        held = call.get("responseStatus", {}).get("code", 500) < 300
        return (call["stageTimestamp"], "lease", client) if held else None
    is_review = call["objectRef"].get("apiGroup") == "authorization.k8s.io"
    return None if is_review else (call["requestReceivedTimestamp"], "write", client)


@contextmanager
def replicas(story: Story, *proxies: Faults) -> Iterator[None]:
    """Replicas of the operator with one Lease. Each is stopped for 15 s in the middle of every tenth of its writes."""

    def stop(operator: Operator, faults: Faults) -> None:
        faults.faults["written"] += 1
        if faults.faults["written"] % 10 == 0:
            faults.faults["stopped"] += 1
            operator.send_signal(signal.SIGSTOP)
            timer = threading.Timer(15, operator.send_signal, [signal.SIGCONT])
            timer.daemon = True
            timer.start()

    with ExitStack() as stack:
        for faults in proxies:
            faults.mangle, faults.codes, faults.share = anything, (409, 429, 500, LOST), 0.2
            terms = {"CONCH_LEASE_NAMESPACE": story.namespace, "POD_NAME": faults.client}
            operator = story.operator(**terms, KUBECONFIG=str(faults.kubeconfig))
            faults.on_write = partial(stop, operator, faults)
            stack.enter_context(restarted(operator))
        yield


@contextmanager
def restarted(operator: Operator) -> Iterator[None]:
    """An operator that starts again whenever it ends, as a kubelet starts it."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(0.05):
            if operator.process is None or operator.process.poll() is not None:
                operator.start()

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        operator.kill()


@pytest.mark.long
@pytest.mark.parametrize("step", ["+1h", "-1h"])
def test_a_clock_that_is_set_by_an_hour_changes_no_object(
    story: Story, faults: Faults, tmp_path: Path, step: str
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")

    def is_paused() -> bool:
        service = story.kube.get(INFERENCE_SERVICE, story.namespace, "magika") or {}
        return bool(service.get("status", {}).get("rollout", {}).get("reason") == "Paused")

    def set_clock() -> None:
        until(is_paused, "the rollout pauses")
        faults.faults[step] += 1
        clock.write_text(step)
        time.sleep(15)
        assert is_paused(), "a pause is as long as the spec sets"
        until(lambda: not is_paused(), "the pause ends")

    story.meanwhile, story.pause = set_clock, "20s"
    operator = OperatorWithClock(story.cluster, story.log, clock, KUBECONFIG=str(faults.kubeconfig))
    check(story, faults, running(operator))


class OperatorWithClock(Operator):
    """An operator with a clock of its own, which a file sets: it has the difference from the machine's."""

    def __init__(self, cluster: Cluster, log: Path, clock: Path, **env: str) -> None:
        """Prepare it. Only the wall clock is set; no clock of a machine sets the monotonic one."""
        library = Path("/usr/lib") / get_config_var("MULTIARCH") / "faketime" / "libfaketimeMT.so.1"
        packages.ensure({str(library): "libfaketime"})
        faketime = {
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        super().__init__(cluster, log, LD_PRELOAD=str(library), **faketime, **env)

    def start(self) -> None:
        """Start the process; a library is loaded before a program only where the program is begun anew."""
        command = [str(Path(sys.executable).with_name("conch"))]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
