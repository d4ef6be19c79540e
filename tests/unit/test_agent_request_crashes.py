"""Models that had answered requests before each end of Triton: the one that is named, and those that are reported."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from conch_agent.callees import find_needed
from conch_agent.crashes import Crashes
from conch_agent.request_crashes import FORGET_SECONDS, Content, Window, find_suspects
from conch_contract import ModelSource
from tests.unit.test_agent_crashes import Part

SERVED = "abc"
TABLE: dict[str, tuple[list[str], list[str], str]] = {
    # What answered requests before each end, and in windows without an end; the suspects.
    "two ends are too few": (["a", "a"], [], ""),
    "one before all ends": (["a", "ab", "a"], [], "a"),
    "one before the last three ends": (["b", "b", "a", "ab", "ac"], [], "a"),
    "another was absent before an earlier end": (["a", "ab", "ab", "ab"], ["ab"] * 9, "a"),
    "the last end is without it": (["a", "a", "a", "b"], [], ""),
    "none before one of the ends": (["a", "", "a"], [], ""),
    "several before all ends": (["ab", "ab", "abc"], [], "ab"),
    "a single one, that answers all the time": (["a", "ab", "ac"], ["ab"] * 9, "a"),
    "another answers all the time": (["ab", "ab", "ab"], ["b"] * 4, "a"),
    "three windows are too few": (["ab", "ab", "ab"], ["b"] * 3, "ab"),
    "another answers most of the time": (["ab", "ab", "ab"], ["b"] * 8 + ["c"] * 2, "a"),
    "another answers somewhat more often": (["ab", "ab", "ab"], ["b"] * 5 + ["a"] * 2 + [""] * 3, "ab"),
    "both answer all the time": (["ab", "ab", "ab"], ["ab"] * 60, "ab"),
    "the steps of an ensemble beside another": (["abc", "abc", "abc"], ["c"] * 10 + ["abc"], "ab"),
}


def identify(names: Collection[str]) -> frozenset[Content]:
    return frozenset((name, "1") for name in names)


@pytest.mark.parametrize("case", TABLE)
def test_the_suspects_of_ends(case: str) -> None:
    ends, windows, suspects = TABLE[case]
    found = find_suspects(
        [identify(end) for end in ends], [Window(identify(SERVED), identify(window)) for window in windows]
    )
    assert found == identify(suspects)


def test_the_time_in_which_a_model_was_not_served_is_no_evidence() -> None:
    windows = [Window(identify("b"), identify("b"))] * 60
    assert find_suspects([identify("ab")] * 3, windows) == identify("ab")


class Pod:
    """The models of a pod, their requests, and a clock that a test sets."""

    def __init__(self, *names: str) -> None:
        self.now = 100.0
        self.crashes = Crashes(lambda: self.now)
        self.models = {name: Part() for name in names}
        self.counts: dict[str, int] = {}
        self.start_triton()

    @property
    def served(self) -> list[str]:
        return [name for name, model in self.models.items() if model.is_loaded]

    def start_triton(self) -> None:
        """Triton starts, and serves the models that are due."""
        for model in self.models.values():
            model.is_loaded = False
        for _ in range(2):  # those that are not named first
            self.load_due()
        self.read()

    def load_due(self) -> None:
        """Load the models that are due."""
        for name, model in self.models.items():
            if not model.is_loaded and self.crashes.is_due(name, self.models, {}):
                self.crashes.record_served(name, model.content)
                model.is_loaded, self.counts[name] = True, 0

    def find_delay(self, name: str) -> int:
        """Return the seconds until a model is due."""
        began = self.now
        while not self.crashes.is_due(name, self.models, {}):
            self.now += 1
        return int(self.now - began)

    def read(self) -> None:
        self.crashes.requests.record_counts(dict(self.counts))

    def answer(self, *names: str) -> None:
        """Each model answers a request, if it is served, and a second passes."""
        for name in set(names) & self.counts.keys():
            self.counts[name] += 1
        self.now += 1
        self.read()

    def wait(self, seconds: int, *names: str) -> None:
        """Time passes, in which models answer requests."""
        for _ in range(seconds):
            self.answer(*names)

    def end_triton(self) -> None:
        self.crashes.record_end()
        self.counts, self.now = {}, self.now + 1
        self.start_triton()

    def crash(self, *names: str) -> None:
        """Models answer requests, and Triton ends."""
        self.answer(*names)
        self.end_triton()

    def reason(self, name: str) -> str:
        failure = self.crashes.find_failure(name, self.models[name].content)
        return failure.reason if failure else ""

    def suspicion(self, name: str) -> str:
        return self.crashes.bind(name, self.models[name].content).suspicion


def name_culprit() -> Pod:
    """A pod in which Triton has just ended for the third time at requests to a."""
    pod = Pod("a", "b")
    pod.crash("a", "b")
    pod.crash("a", "b")
    assert pod.served == ["a", "b"]
    pod.crash("a")
    return pod


def test_the_model_before_three_ends_is_named_and_loaded_after_a_delay() -> None:
    pod = name_culprit()
    assert (pod.reason("a"), pod.reason("b")) == ("RequestsCrashed", "")
    assert pod.served == ["b"]
    failure = pod.crashes.find_failure("a", "1")
    assert failure
    assert failure.message.startswith("Triton ended 3 times while it answered requests, each time after model 'a' had")
    assert "kubectl logs POD -c triton --previous" in failure.message
    assert "OOMKilled" in failure.message
    assert 4 <= pod.find_delay("a") <= 10
    assert not pod.suspicion("a")
    pod.wait(10, "b")
    assert pod.reason("a") == "RequestsCrashed", "it is not served yet"
    pod.crashes.record_served("a", "1")
    assert pod.reason("a") == ""


def test_the_delay_begins_when_the_others_serve() -> None:
    pod = name_culprit()
    pod.find_delay("a")
    pod.start_triton()
    pod.answer("a")
    pod.crashes.record_end()
    pod.models["a"].is_loaded = pod.models["b"].is_loaded = False
    pod.now += 300  # until the kubelet has started Triton again
    assert not pod.crashes.is_due("a", pod.models, {})
    pod.models["b"].is_loaded = True
    assert 10 <= pod.find_delay("a") <= 20


def test_a_read_of_before_the_end_does_not_clear_the_model() -> None:
    pod = name_culprit()
    pod.crashes.record_served("a", "1")
    assert pod.reason("a") == "RequestsCrashed"


def test_each_further_end_names_it_at_once_and_the_delays_grow() -> None:
    pod = name_culprit()
    delays = []
    for _ in range(10):
        pod.wait(int(pod.find_delay("a")) + 1, "b")
        pod.start_triton()
        pod.wait(11, "b")
        pod.crash("a")
        delays.append(pod.find_delay("a"))
        assert pod.reason("a") == "RequestsCrashed"
    assert 9 <= delays[0] <= 20
    assert 299 <= delays[-1] <= 600
    failure = pod.crashes.find_failure("a", "1")
    assert failure
    assert failure.message.startswith("Triton ended 13 times")


def test_an_end_without_it_clears_it() -> None:
    pod = name_culprit()
    pod.crash("b")  # while a is not loaded
    assert pod.reason("a") == ""
    assert pod.served == ["a", "b"]
    pod.crash("a", "b")
    pod.crash("a")
    assert pod.reason("a") == "", "of the last three ends one was without it"


def test_another_content_is_no_suspect() -> None:
    pod = name_culprit()
    pod.models["a"].content = "2"
    pod.load_due()
    assert pod.served == ["a", "b"]
    assert pod.reason("a") == ""
    pod.start_triton()
    pod.crash("a")
    assert pod.reason("a") == ""


def test_ends_of_long_ago_are_forgotten() -> None:
    pod = Pod("a", "b")
    pod.crash("a", "b")
    pod.crash("a")
    assert pod.crashes.requests.has_ends
    pod.wait(int(FORGET_SECONDS) + 1, "b")
    assert not pod.crashes.requests.has_ends
    pod.crash("a")
    assert pod.reason("a") == ""


def test_steps_of_one_ensemble_are_reported_and_not_held() -> None:
    pod = Pod("post", "pre", "pipeline", "other")
    pod.wait(3, "other")
    for _ in range(3):
        pod.wait(11)
        pod.crash("pre", "post", "pipeline")
    assert pod.served == ["post", "pre", "pipeline", "other"]
    message = pod.suspicion("pipeline")  # the first one in alphabetical order reports it
    assert "these models had answered some in the last 10 s: pipeline, post and pre." in message
    assert "kubectl logs POD -c triton --previous" in message
    assert [pod.suspicion(name) for name in ("post", "pre", "other")] == ["", "", ""]
    pod.crash("other")
    assert not pod.suspicion("pipeline")


def test_a_model_whose_others_answer_nothing_is_reported_and_not_held() -> None:
    """Without it nothing would be served, and the node may have ended Triton."""
    pod = Pod("a", "b")
    for _ in range(3):
        pod.crash("a")
    assert pod.served == ["a", "b"]
    assert pod.reason("a") == ""
    assert "each time after model 'a' had answered some in the last 10 s" in pod.suspicion("a")


def test_a_model_without_which_the_pod_is_not_ready_is_reported_and_not_held() -> None:
    pod = Pod("a", "b")
    pod.crashes.requests.needed = find_needed(ModelSource(name="a", format="onnx", storage_uri="s3://m/a"), pod.models)
    pod.crash("a", "b")
    pod.crash("a", "b")
    pod.crash("a")
    assert pod.served == ["a", "b"]
    assert pod.reason("a") == ""
    assert "loaded again at once, since its pod does not serve without it" in pod.suspicion("a")
    pod.crash("b")
    assert not pod.suspicion("a")


def test_the_entry_and_the_steps_of_ensembles_are_needed() -> None:
    models = {"entry": Part(), "ensemble": Part(steps=("pre", "post")), "other": Part()}
    source = ModelSource(name="entry", format="onnx", storage_uri="s3://m/entry")
    assert find_needed(source, models) == {"entry", "pre", "post"}


def test_another_content_of_the_model_is_no_other_model() -> None:
    pod = Pod("a", "b")
    pod.answer("a")
    pod.models["a"].content = "2"
    pod.start_triton()
    for _ in range(3):
        pod.crash("a")
    assert pod.reason("a") == ""


def test_the_model_that_others_surround_all_the_time_is_named() -> None:
    pod = Pod("a", "b")
    for _ in range(3):
        pod.wait(35, "b")
        pod.crash("a", "b")
    assert (pod.reason("a"), pod.reason("b")) == ("RequestsCrashed", "")
    assert pod.served == ["b"]


def test_requests_long_before_an_end_do_not_count() -> None:
    pod = Pod("a", "b")
    for _ in range(3):
        pod.wait(5, "a", "b")
        pod.wait(11, "b")
        pod.end_triton()
    assert pod.reason("a") == ""
    assert pod.reason("b") == "RequestsCrashed"


def test_an_end_during_a_load_is_that_of_the_load() -> None:
    pod = Pod("a", "b")
    for _ in range(4):
        pod.answer("a", "b")
        pod.crashes.begin_load("b", "1")
        pod.end_triton()
        pod.crashes.end_load("b", "1")
    assert not pod.crashes.requests.has_ends
    pod.crash("b")
    pod.crash("b")
    assert pod.reason("a") == ""


def test_requests_before_the_agent_started_do_not_count() -> None:
    pod = Pod("a", "b")
    again = Pod("a", "b")
    again.crashes = Crashes(lambda: again.now)
    again.counts = {"a": 7, "b": 7}
    for name in "ab":
        again.crashes.record_served(name, "1")
    again.read()
    again.answer("b")
    again.end_triton()
    for _ in range(2):
        again.crash("a", "b")
    assert again.reason("b") == "RequestsCrashed"
    assert pod.reason("b") == ""


def test_a_pod_that_serves_one_model_holds_none() -> None:
    pod = name_culprit()
    pod.crashes.requests.forget()
    assert pod.find_delay("a") == 0
    assert pod.reason("a") == ""
