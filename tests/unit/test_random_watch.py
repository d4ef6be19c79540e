"""Random stories of storage.watch: whatever was uploaded meanwhile, the last content serves, and all is quiet."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from conch_contract import ModelManifest, ModelState, SourceReport, names
from tests.unit.delays import DelayedCluster
from tests.unit.random_delays import SETTINGS, Delays
from tests.unit.state_machines import run_stories
from tests.unit.test_random_delays import AutoscaledSwaps, DelayedSwaps, DisturbedSwaps, SwapsDrivenByKeda

CONTENTS = ["a", "b", "c"]


class WatchedCluster(DelayedCluster):
    """A cluster whose agents watch their source, a bucket with versioning: what is pinned can be fetched."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.content = CONTENTS[0]  # of the source
        self.fetched: dict[tuple[str, str], str] = {}  # content, by the pod's uid and the revision
        self.seen: dict[str, tuple[str, float]] = {}  # content that a pod has read twice, and since when

    def load(self, name: str, *, fails: bool = False) -> None:
        agent, uid = self.agent_of(name), self.read_pod(name)["metadata"]["uid"]
        if agent.data and agent.target:
            text = agent.data.get(f"{agent.target}.json") or agent.data[names.MANIFEST_FILE]
            [model] = ModelManifest.model_validate_json(text).models
            pinned = model.digest.removeprefix("sha256:")
            fails = fails or (not pinned and model.source_identity not in {"", self.content})
            if not fails and agent.serves != agent.target:
                self.fetched[uid, agent.target] = pinned or self.content
        super().load(name, fails=fails)

    def poll(self, name: str) -> None:
        """Let a pod read its source."""
        uid = self.read_pod(name)["metadata"]["uid"]
        if self.seen.get(uid, ("", 0.0))[0] != self.content:
            self.seen[uid] = (self.content, self.now)
        self.report(name)

    def report(self, name: str) -> None:
        super().report(name)
        agent, uid = self.agent_of(name), self.read_pod(name)["metadata"]["uid"]
        report = self.reports.get(uid)
        if report is None or not self.reaches_agents:
            return
        content = self.fetched.get((uid, agent.target), "")
        identity, since = self.seen.get(uid, ("", 0.0))
        source = SourceReport(model="magika", fetched=content, identity=identity, since=since)
        digest = f"sha256:{content}" if content and report.models[0].state == ModelState.READY else ""
        models = (report.models[0].model_copy(update={"digest": digest}),)
        self.reports[uid] = report.model_copy(update={"models": models, "sources": (source,)})

    def advance(self, rounds: int = 1, *, fails: bool = False) -> None:
        for _ in range(rounds):
            super().advance(fails=fails)
            for name in self.list_serving_pods():
                self.poll(name)
            self.settle()

    def list_contents(self) -> set[str]:
        """Return the contents that the predictor's pods serve."""
        pods = [self.read_pod(name)["metadata"] for name in self.list_serving_pods()]
        own = [pod for pod in pods if names.LABEL_VARIANT not in pod["labels"]]
        return {self.fetched[pod["uid"], self.agent_of(pod["name"]).serves] for pod in own}


class Watching(Delays):
    """Stories of a service that watches its source, to which anything may be uploaded at any time."""

    cluster: WatchedCluster

    def build(self, manifest: dict[str, Any], **settings: Any) -> DelayedCluster:
        manifest["spec"]["predictor"]["model"]["storage"] |= {"watch": "Rollout", "refresh": "30s"}
        return WatchedCluster(manifest, **settings)

    @rule(content=st.sampled_from(CONTENTS))
    def upload(self, content: str) -> None:
        self.cluster.content = content

    @rule(index=st.integers(0, 7))
    def read_source(self, index: int) -> None:
        for name in self.pick(index):
            self.cluster.poll(name)

    @rule()
    def forget_reports(self) -> None:
        """Let the operator start again, before a pod reports."""
        known = dict(self.cluster.reports)
        self.cluster.reports.clear()
        self.cluster.reconcile()
        self.cluster.reports.update(known)

    def teardown(self) -> None:
        super().teardown()
        if not hasattr(self, "cluster") or self.cluster.status.rollout is not None:
            return
        assert self.cluster.list_contents() <= {self.cluster.content}, self.describe()
        self.cluster.now += 200
        self.cluster.settle()
        writes = self.cluster.status_writes
        for _ in range(3):
            self.cluster.now += 30
            assert not self.cluster.reconcile()
        assert self.cluster.status_writes == writes


class WatchedSwaps(Watching, DelayedSwaps):
    """With a fixed number of pods, and any strategy."""


class WatchedDisturbedSwaps(Watching, DisturbedSwaps):
    """With other writers."""


class WatchedAutoscaledSwaps(Watching, AutoscaledSwaps):
    """With an autoscaler."""


class WatchedSwapsDrivenByKeda(Watching, SwapsDrivenByKeda):
    """With KEDA, which may end all pods."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "stories", [WatchedSwaps, WatchedDisturbedSwaps, WatchedAutoscaledSwaps, WatchedSwapsDrivenByKeda]
)
def test_watched_swaps(stories: type[Delays]) -> None:
    run_stories(stories, 0, settings(SETTINGS, max_examples=3))
