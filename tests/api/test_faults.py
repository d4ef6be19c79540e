"""The operator behind an API server whose answers and watches fail: the same objects in the end, and no orphan."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conch.api.kinds import DEPLOYMENT, Ref
from tests.api.operator import Operator, children, essence, isvc, settled
from tests.cluster import Cluster
from tests.support.faults import LOST, Faults, Mangle, anything, broken, cut, doubled, expired, half_open, reordered
from tests.support.kube import Kube, Object
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


def rollout(uri: str) -> Object:
    """Return a service whose change passes a step, without a gateway."""
    body = isvc(uri=uri, minReplicas=2)
    body["spec"]["rollout"] = {"steps": [{"weight": 50}, {"pause": "1s"}]}
    body["spec"]["traffic"] = {"split": "Replicas"}
    return body


Story = Callable[[Faults | None], dict[Ref, Object]]


@pytest.fixture
def story(cluster: Cluster, kube: Kube, namespace: str, log: Path) -> Story:
    """Create a service, roll out a change and delete it; return the objects that there were before the end."""

    def play(faults: Faults | None) -> dict[Ref, Object]:
        through = {"KUBECONFIG": str(faults.kubeconfig)} if faults is not None else {}
        with Operator(cluster, log, **through) as operator:
            for uri in ("s3://models/one", "s3://models/two"):
                kube.apply(rollout(uri), namespace)
                until(settled(kube, namespace), f"{uri} is Ready", SECONDS, seen=operator.said)
                until(lambda: len(kube.list(DEPLOYMENT, namespace)) == 1, "one Deployment is left", SECONDS)
            final = essence(kube, namespace)
            kube.run("--namespace", namespace, "delete", "isvc", "--all")
            until(lambda: not children(kube, namespace), "the children are gone", SECONDS)
            assert operator.process is not None
            assert operator.process.poll() is None, operator.said()[-3000:]
            assert "Traceback" not in operator.said(), operator.said()[-5000:]
        return final

    return play


@pytest.fixture
def faults(cluster: Cluster, tmp_path: Path) -> Iterator[Faults]:
    """A proxy before the API server, with a seed of its own."""
    with Faults(cluster.kubeconfig, tmp_path, int(time.time())) as faults:
        yield faults


def check(story: Story, faults: Faults) -> None:
    """Compare the story's objects with those without a fault."""
    disturbed = story(faults)
    assert faults.faults, "nothing went wrong: the test shows nothing"
    assert disturbed == story(None), f"seed {faults.seed}: {faults.faults}"


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
    def leave_and_come_back() -> None:
        time.sleep(8)  # in the middle of the first rollout
        faults.leave()
        time.sleep(seconds)
        faults.come_back()

    thread = threading.Thread(target=leave_and_come_back)
    thread.start()
    check(story, faults)
    thread.join()
