"""Random stories of Swap whose components are late: with fixed replicas, other writers, autoscalers and few GPUs."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from conch.api.kinds import AUTOSCALER, CONFIG_MAP, CONTROLLER_REVISION, DEPLOYMENT, SCALED_OBJECT, SERVICE, Ref
from conch.api.names import ANNOTATION_ASSIGNED, ANNOTATION_SERVES
from conch_contract import names
from tests.unit.delays import TRAFFIC, DelayedCluster
from tests.unit.random_delays import SETTINGS, STEPS, Delays
from tests.unit.simulation import GPU, build_manifest
from tests.unit.state_machines import run_stories

# Changes of a pod's metadata by hand.
EDITS: list[Callable[[dict[str, Any]], object]] = [
    lambda meta: meta["labels"].pop(names.LABEL_REVISION, None),
    lambda meta: meta["labels"].update({names.LABEL_REVISION: "mine"}),
    lambda meta: meta["annotations"].pop(ANNOTATION_ASSIGNED, None),
    lambda meta: meta["annotations"].pop(ANNOTATION_SERVES, None),
]


class DelayedSwaps(Delays):
    """A service with a fixed number of pods; the user changes it as well as the strategy."""

    @initialize(
        traffic=st.sampled_from([None, {"split": "Replicas"}, TRAFFIC, TRAFFIC]),
        steps=st.sampled_from(STEPS),
        pods=st.sampled_from([1, 1, 2, 4]),
        fields=st.sampled_from([{}, {"warmup": {}}]),
        is_behind=st.booleans(),
    )
    def begin(
        self,
        traffic: dict[str, Any] | None,
        steps: list[dict[str, Any]],
        pods: int,
        fields: dict[str, Any],
        is_behind: bool,
    ) -> None:
        rollout = {"strategy": "Swap", "steps": steps, "progressDeadline": "3m", "historyLimit": pods % 2}
        manifest = build_manifest(rollout=rollout, traffic=traffic, minReplicas=pods, **fields)
        self.start(self.build(manifest), is_behind=is_behind)

    @rule(strategy=st.sampled_from(["Swap", "Swap", "Progressive", "Recreate"]))
    def change_strategy(self, strategy: str) -> None:
        self.is_whole = self.is_whole and strategy != "Recreate"
        self.cluster.edit_rollout(strategy=strategy, **({"steps": []} if strategy == "Recreate" else {}))

    @rule(pods=st.sampled_from([1, 2, 4]))
    def change_replicas(self, pods: int) -> None:
        self.cluster.edit(minReplicas=pods)


class DisturbedSwaps(DelayedSwaps):
    """With other writers, who edit pods and delete children."""

    @rule(index=st.integers(0, 7), edit=st.sampled_from(EDITS))
    def edit_pod(self, index: int, edit: Callable[[dict[str, Any]], object]) -> None:
        for name in self.pick(index):
            self.is_whole, self.is_edited = False, True
            body = copy.deepcopy(self.cluster.read_pod(name))
            edit(body["metadata"])
            self.cluster.put(body)

    @rule(kind=st.sampled_from([CONFIG_MAP, SERVICE, CONTROLLER_REVISION]), data=st.data())
    def delete_child(self, kind: Any, data: st.DataObject) -> None:
        ours = sorted(ref.name for ref in self.cluster.objects if ref.kind == kind)
        self.is_whole = self.is_whole and not ours
        for name in [data.draw(st.sampled_from(ours))] if ours else []:
            self.cluster.remove(Ref(kind, name))


class AutoscaledSwaps(Delays):
    """A service with an autoscaler: an HPA, which keeps one pod at least."""

    @initialize(
        traffic=st.sampled_from([None, TRAFFIC]),
        steps=st.sampled_from(STEPS),
        minimum=st.sampled_from([0, 1, 1, 2]),
        fields=st.sampled_from([{}, {"warmup": {}}]),
        is_behind=st.booleans(),
    )
    def begin(
        self,
        traffic: dict[str, Any] | None,
        steps: list[dict[str, Any]],
        minimum: int,
        fields: dict[str, Any],
        is_behind: bool,
    ) -> None:
        self.start(self.create(traffic, steps, minimum, fields), is_behind=is_behind)

    def create(
        self, traffic: dict[str, Any] | None, steps: list[dict[str, Any]], minimum: int, fields: dict[str, Any]
    ) -> DelayedCluster:
        """Return the cluster of such a service."""
        rollout = {"strategy": "Swap", "steps": steps, "progressDeadline": "3m"}
        replicas: dict[str, Any] = {"minReplicas": max(minimum, 1), "maxReplicas": 4}
        return self.build(build_manifest(rollout=rollout, traffic=traffic, **replicas, **fields))

    @rule(pods=st.integers(0, 4))
    def scale(self, pods: int) -> None:
        """Let the autoscaler set replicas, within the bounds of its object."""
        objects = self.cluster.objects
        for ref in [ref for ref in objects if ref.kind == DEPLOYMENT]:
            scaler = objects.get(Ref(AUTOSCALER, ref.name)) or objects.get(Ref(SCALED_OBJECT, ref.name))
            replicas = objects[ref]["spec"].get("replicas", 1)
            if scaler is None or (replicas == 0 and scaler["kind"] == AUTOSCALER.name):
                continue  # an HPA leaves zero replicas alone
            spec = scaler["spec"]
            minimum = spec.get("minReplicas", spec.get("minReplicaCount", 1))
            maximum = spec.get("maxReplicas", spec.get("maxReplicaCount", 4))
            wanted = max(minimum, min(maximum, pods))
            self.is_whole = self.is_whole and wanted >= max(replicas, 1)
            body = copy.deepcopy(objects[ref])
            body["spec"]["replicas"] = wanted
            self.cluster.put(body)

    @rule(pods=st.sampled_from([1, 2]))
    def change_minimum(self, pods: int) -> None:
        self.cluster.edit(minReplicas=pods)


class SwapsDrivenByKeda(AutoscaledSwaps):
    """KEDA scales it, to zero if the user lets it."""

    def create(
        self, traffic: dict[str, Any] | None, steps: list[dict[str, Any]], minimum: int, fields: dict[str, Any]
    ) -> DelayedCluster:
        rollout = {"strategy": "Swap", "steps": steps, "progressDeadline": "3m"}
        replicas: dict[str, Any] = {"minReplicas": minimum, "maxReplicas": 4}
        manifest = build_manifest(rollout=rollout, traffic=traffic, **replicas, **fields)
        return self.build(manifest, metrics_api="keda", prometheus="http://prometheus")

    @rule(minimum=st.sampled_from([0, 1]))
    def change_zero(self, minimum: int) -> None:
        self.cluster.edit(minReplicas=minimum)


class SwapsForLackOfGpus(AutoscaledSwaps):
    """Pods have a GPU each; with too few of them a rollout is a Swap."""

    def create(
        self, traffic: dict[str, Any] | None, steps: list[dict[str, Any]], minimum: int, fields: dict[str, Any]
    ) -> DelayedCluster:
        rollout = {"strategy": "Progressive", "onInsufficientCapacity": "Swap", "steps": steps}
        predictor: dict[str, Any] = {
            "minReplicas": max(minimum, 1),
            "maxReplicas": 4,
            "resources": {"limits": {GPU: 1}},
            **fields,
        }
        manifest = build_manifest(rollout={**rollout, "progressDeadline": "3m"}, traffic=traffic, **predictor)
        cluster = self.build(manifest)
        cluster.gpus = 4
        return cluster

    @rule(gpus=st.sampled_from([2, 4, 8]))
    def change_gpus(self, gpus: int) -> None:
        self.cluster.gpus = gpus


@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize(
    "stories", [DelayedSwaps, DisturbedSwaps, AutoscaledSwaps, SwapsDrivenByKeda, SwapsForLackOfGpus]
)
def test_delayed_swaps(stories: type[Delays], part: int) -> None:
    run_stories(stories, part, SETTINGS)
