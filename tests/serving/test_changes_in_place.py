"""The one pod of a service, which gets requests while its model changes: whatever happens meanwhile, it is ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from conch_contract import AgentReport, ModelSource, TritonConfig, Warmup, WarmupRequest
from conch_contract.manifest import VersionPolicy
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.store import Store
from tests.serving.test_lifecycle import build_double, build_python
from tests.serving.test_swaps import INPUT, SLOW, X, is_right, read_answer
from tests.support.traffic import Mix, RepeatedRequest, Traffic

WARMUP = Warmup(requests=(WarmupRequest(body={"inputs": [INPUT]}),))
WRONG = WarmupRequest(body={"inputs": [INPUT]}, expected=({"name": "y", "data": [0, 0]},))
GRACE = 3_600_000  # milliseconds, as in a pod: Triton's answer to a load of some seconds is not lost
BROKEN = {"broken/model.py": b"raise RuntimeError('the weights are not here')\n"}


def build_slow(folder: str, factor: int) -> dict[str, bytes]:
    files = build_double(folder, factor)
    return {**files, f"{folder}/double.py": files[f"{folder}/model.py"], f"{folder}/model.py": SLOW.encode()}


def begin(store: Store, pod: Pod, files: dict[str, bytes], *revisions: ModelSource) -> None:
    """Start a pod that serves the first of revisions m-1, m-2 and so on."""
    store.put("models", files)
    pod.write_secret(store.secret)
    for number, source in enumerate(revisions, 1):
        pod.write_manifest_of(f"m-{number}", source, is_default=number == 1, in_place=True)
    pod.assign("m-1")
    pod.start_agent()
    pod.start_triton(grace=GRACE)
    pod.until_ready()


def with_warmup(folder: str) -> ModelSource:
    return build_python(f"s3://models/{folder}").model_copy(update={"warmup": WARMUP})


@contextmanager
def watch(pod: Pod) -> Iterator[Callable[[str, str], None]]:
    """Send requests; yield a function that waits until a revision is served; the pod is ready meanwhile."""
    request = RepeatedRequest("m", "x", X, "y", is_right)
    unready: list[AgentReport] = []

    def until_served(revision: str, what: str) -> None:
        def is_served() -> bool:
            if not pod.ready:
                unready.append(pod.report)
            report = pod.report
            return report.revision == revision and report.has_loaded

        until(is_served, what, pod.agent)

    with Traffic(f"127.0.0.1:{pod.http}", f"127.0.0.1:{pod.grpc}", request, Mix(grpc=2, fresh=2, kept=2)) as traffic:
        yield until_served
    assert not unready
    assert not traffic.failed, traffic


def until_loading(pod: Pod, text: str) -> None:
    log = pod.root / "triton.log"
    until(lambda: text in log.read_text(), "the other revision is loading", pod.agent)


def restart_agent(pod: Pod) -> None:
    assert pod.agent is not None
    pod.agent.kill()
    pod.start_agent()


def test_the_new_content_may_have_another_version_and_be_the_older_one(store: Store, pod: Pod) -> None:
    versions = build_slow("versions/1", 2) | build_double("versions/2", 3)
    latest = build_python("s3://models/versions")
    pinned = latest.model_copy(update={"config": TritonConfig(version_policy=VersionPolicy(specific=(1,)))})
    begin(store, pod, versions, latest, pinned)
    with watch(pod) as until_served:
        pod.assign("m-2")
        until_served("m-2", "version 1 is served")
    assert read_answer(pod) == [3.0, 4.0]


def test_an_agent_that_starts_again_during_the_load_finds_the_pod_answering(store: Store, pod: Pod) -> None:
    begin(store, pod, build_double("quick", 2) | build_slow("slow", 3), with_warmup("quick"), with_warmup("slow"))
    pod.assign("m-2")
    until_loading(pod, "a slow load begins")
    restart_agent(pod)
    until(lambda: pod.ready, "the pod is ready", pod.agent, seconds=4)  # the load takes longer
    until(lambda: pod.report.revision == "m-2" and pod.report.has_loaded, "the other revision is served", pod.agent)
    assert pod.ready
    assert read_answer(pod) == [4.5, 6.0]


def test_an_agent_that_starts_again_after_a_failed_load_finds_the_pod_answering(store: Store, pod: Pod) -> None:
    begin(store, pod, build_double("quick", 2) | BROKEN, with_warmup("quick"), with_warmup("broken"))
    pod.assign("m-2")
    pod.until_reason("LoadFailed")
    assert pod.ready
    restart_agent(pod)
    pod.until_ready()
    pod.until_reason("LoadFailed")
    assert pod.ready
    assert read_answer(pod) == [3.0, 4.0]


def test_a_pod_whose_warm_up_fails_stays_until_the_operator_has_it_go_back(store: Store, pod: Pod) -> None:
    wrong = build_python("s3://models/third").model_copy(update={"warmup": Warmup(requests=(WRONG,))})
    begin(store, pod, build_double("quick", 2) | build_double("third", 3), build_python("s3://models/quick"), wrong)
    with watch(pod) as until_served:
        pod.assign("m-2")
        warmup = pod.until_reason("WarmupAnswersWrong").warmup
        assert warmup is not None
        assert warmup.has_failed
        pod.assign("m-1")
        until_served("m-1", "the first revision is back")
    assert read_answer(pod) == [3.0, 4.0]


def test_a_change_back_during_a_load_is_reported_when_the_load_has_ended(store: Store, pod: Pod) -> None:
    sources = [build_python(f"s3://models/{folder}") for folder in ("quick", "slow")]
    begin(store, pod, build_double("quick", 2) | build_slow("slow", 3), *sources)
    with watch(pod) as until_served:
        pod.assign("m-2")
        until_loading(pod, "a slow load begins")
        pod.assign("m-1")
        waiting = pod.until_reason("WaitsForLoad")
        assert "which cannot be cancelled" in waiting.message
        until_served("m-1", "the first revision is back")
        assert read_answer(pod) == [3.0, 4.0], "Triton loads nothing more that would replace it"


@pytest.mark.timeout(200)
def test_a_change_while_triton_reads_the_files_of_another_one_waits_for_it(store: Store, pod: Pod) -> None:
    """Triton 2.51 never ends a load whose files are gone, and begins no other one of that version."""
    sources = [build_python(f"s3://models/{folder}") for folder in ("one", "two")]
    begin(store, pod, build_double("one/1", 2) | build_slow("two/2", 3), *sources)
    with watch(pod) as until_served:
        pod.assign("m-2")
        until_loading(pod, '"loading: m:2"')
        pod.assign("m-1")
        until_served("m-1", "the first revision is back")
        pod.assign("m-2")
        until_served("m-2", "the other revision is served")
    assert read_answer(pod) == [4.5, 6.0]
