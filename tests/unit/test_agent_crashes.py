"""Models during whose loads Triton ended: the order of the next loads, and the one that is named."""

from __future__ import annotations

from dataclasses import dataclass

from conch_agent.crashes import Crashes
from conch_contract import ModelState


@dataclass
class Part:
    """A model of a pod."""

    content: str = "1"
    callees: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    is_loaded: bool = False
    is_left_out: bool = False
    state: ModelState = ModelState.LOADING

    @property
    def is_current(self) -> bool:
        """Whether it is served with the content of the manifest: whenever it is served."""
        return self.is_loaded


class Pod:
    """The models of a pod, and a clock that a test sets."""

    def __init__(self, *names: str) -> None:
        self.now = 100.0
        self.crashes = Crashes(lambda: self.now)
        self.models = {name: Part() for name in names}

    @property
    def allowed(self) -> list[str]:
        """Models that may be loaded now."""
        due = [name for name, model in self.models.items() if not model.is_loaded]
        return [name for name in due if self.crashes.may_load(name, self.models, {})]

    def begin(self, *names: str) -> None:
        for name in names:
            self.crashes.begin_load(name, self.models[name].content)

    def serve(self, *names: str) -> None:
        for name in names:
            self.crashes.end_load(name, self.models[name].content)
            self.models[name].is_loaded = True

    def end_triton(self) -> None:
        self.crashes.record_end()
        for model in self.models.values():
            model.is_loaded = False

    def wait(self, name: str) -> float:
        """Return the seconds until a model may be loaded, while all others serve."""
        began = self.now
        while not self.crashes.is_due(name, self.models, {}):
            self.now += 1
        return self.now - began

    def reason(self, name: str) -> str:
        failure = self.crashes.find_failure(name, self.models[name].content)
        return failure.reason if failure else ""


def test_the_culprit_of_several_is_found_after_two_ends() -> None:
    pod = Pod("a", "b", "c", "d")
    pod.begin("a", "b", "c", "d")
    pod.serve("a")
    pod.end_triton()
    assert pod.allowed == ["a"]  # it was served before Triton ended
    pod.begin("a")
    assert not pod.allowed[1:]
    pod.serve("a")
    assert pod.allowed == ["b", "c", "d"]
    pod.begin("b")
    assert pod.allowed == ["b"]  # alone
    pod.serve("b")
    pod.begin("c")
    pod.end_triton()
    assert [pod.reason(name) for name in "abcd"] == ["", "", "LoadCrashed", ""]
    assert pod.allowed == ["a", "b"]
    pod.serve("a", "b")
    assert pod.allowed == ["d"]  # a suspect precedes the culprit
    pod.now += 1000
    pod.serve("d")
    assert pod.allowed == []
    pod.now += 10
    assert pod.allowed == ["c"]


def test_the_delay_of_a_culprit_begins_when_the_others_serve() -> None:
    pod = Pod("good", "bad")
    pod.serve("good")
    for _ in range(4):
        pod.begin("bad")
        pod.end_triton()
        pod.now += 600  # until Triton has started again
        pod.crashes.is_due("bad", pod.models, {})
        pod.serve("good")
    assert pod.reason("bad") == "LoadCrashed"
    assert 20 <= pod.wait("bad") <= 41


def test_one_end_names_none() -> None:
    pod = Pod("a")
    pod.begin("a")
    pod.end_triton()
    assert pod.reason("a") == ""
    assert pod.allowed == ["a"]
    pod.serve("a")
    pod.begin("a")
    pod.end_triton()
    assert pod.reason("a") == ""  # it was served between


def test_ends_without_loads_name_none() -> None:
    pod = Pod("a")
    for _ in range(5):
        pod.begin("a")
        pod.serve("a")
        pod.end_triton()
    assert pod.reason("a") == ""


def test_ends_with_several_loads_name_none() -> None:
    pod = Pod("a", "b")
    for _ in range(3):
        pod.begin("a", "b")
        pod.end_triton()
    assert [pod.reason(name) for name in "ab"] == ["", ""]


def test_the_delays_of_a_culprit_grow_and_another_content_has_none() -> None:
    pod = Pod("a")
    delays = []
    for _ in range(12):
        pod.begin("a")
        pod.end_triton()
        delays.append(pod.wait("a"))
    assert delays[0] == 0
    assert 5 <= delays[1] <= 10
    assert 300 <= delays[-1] <= 600
    failure = pod.crashes.find_failure("a", "1")
    assert failure
    assert "Triton ended 12 times while it loaded model 'a'" in failure.message
    pod.models["a"].content = "2"
    assert pod.reason("a") == ""
    assert pod.wait("a") == 0
    pod.models["a"].content = "1"
    pod.serve("a")
    assert pod.reason("a") == ""


def test_a_culprit_waits_for_models_that_are_fetched_and_not_for_those_that_fail_or_need_it() -> None:
    pod = Pod("bad", "fetched", "failing", "caller")
    pod.models["fetched"].state = ModelState.FETCHING
    pod.models["failing"].state = ModelState.FAILED
    pod.models["caller"].callees = ("bad",)
    for _ in range(2):
        pod.begin("bad")
        pod.end_triton()
    assert "bad" not in pod.allowed
    pod.models["fetched"].is_loaded = True
    pod.wait("bad")
    assert "bad" in pod.allowed


def test_an_abandoned_load_holds_no_other() -> None:
    pod = Pod("a", "b")
    pod.begin("a", "b")
    pod.end_triton()
    pod.begin("a")
    assert pod.allowed == ["a"]
    pod.crashes.abandon_load("a")
    assert pod.allowed == ["a", "b"]
