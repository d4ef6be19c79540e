"""Metrics of a pod's models for Prometheus, in its text format (exposition format 0.0.4).

https://prometheus.io/docs/instrumenting/exposition_formats has the format. Times are Unix times, from which a query
subtracts that of another event: the pod does not know when it was scheduled.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from conch_agent.download import Progress

_OFTEN_SECONDS: Final = 60.0  # after readiness
_SELDOM_SECONDS: Final = 15.0  # between two counts of requests after that
_Sample = tuple[str, Mapping[str, str], float]  # suffix of the name, labels, value


class Phase(StrEnum):
    """Phases of a model on its way to its first answer."""

    LIST = "list"  # the source, or what the cache has of it
    FETCH = "fetch"  # files, which are hashed while they arrive, and unpacked
    VERIFY = "verify"  # the signature, and the digests of the files
    DECRYPT = "decrypt"  # encrypted files
    ENVIRONMENT = "environment"  # packages of a Python model
    LAYOUT = "layout"  # links in Triton's model repository
    LOAD = "load"  # in Triton
    WARM = "warm"  # requests of the warm-up


@dataclass
class ModelMetrics:
    """What the preparation of one model has cost since the agent knows it.

    Attributes:
        progress: Bytes and files of its fetches.
        seconds: Duration of each phase in seconds, failed ones included, but for loads.
        counts: Number of times that each phase has ended.
    """

    progress: Progress = field(default_factory=Progress)
    seconds: dict[Phase, float] = field(default_factory=dict)
    counts: dict[Phase, int] = field(default_factory=dict)

    def add(self, phase: Phase, seconds: float) -> None:
        """Count a phase.

        Args:
            phase: The phase.
            seconds: Its duration in seconds.
        """
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        self.counts[phase] = self.counts.get(phase, 0) + 1

    @contextmanager
    def time(self, phase: Phase) -> Iterator[None]:
        """Count a phase that lasts as long as the block.

        Args:
            phase: The phase.
        """
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(phase, time.monotonic() - began)


@dataclass
class PodTimes:
    """Unix times of a pod in seconds.

    Attributes:
        started: The start of the agent's process.
        ready: The first time that the pod was ready; 0: it was not yet.
        answered: The first answer to a request after that, as late as the count of requests; 0: there was none yet.
    """

    started: float = field(default_factory=time.time)
    ready: float = 0.0
    answered: float = 0.0
    _counted: float = 0.0
    _requests: int | None = None  # that Triton had answered when the pod was ready: those of the warm-up

    def note_ready(self) -> None:
        """Note that the pod is ready."""
        self.ready = self.ready or time.time()

    @property
    def is_count_due(self) -> bool:
        """True while the first answer is awaited: each second in the first minute, and then four times a minute."""
        now = time.time()
        return not self.answered and (now - self.ready < _OFTEN_SECONDS or now - self._counted >= _SELDOM_SECONDS)

    def note_requests(self, count: int) -> None:
        """Note how many requests Triton has answered since it started, once the pod is ready.

        Args:
            count: The number. A Triton that has started again begins anew.
        """
        if self._requests is not None and count > self._requests:
            self.answered = time.time()
        self._requests, self._counted = count, time.time()


def render_metrics(models: Mapping[str, ModelMetrics], times: PodTimes) -> str:
    r"""Return the page of metrics.

    Args:
        models: The metrics of each model by its name.
        times: The times of the pod.

    >>> page = render_metrics({"m": ModelMetrics(Progress(downloaded=7))}, PodTimes(started=1.5))
    >>> "conch_model_downloaded_bytes_total{model=\"m\"} 7" in page.splitlines()
    True
    """
    progress = {name: model.progress for name, model in models.items()}
    families = [
        _render(
            "conch_model_phase_seconds",
            "summary",
            "Duration of the phases of a model.",
            (sample for name, model in models.items() for sample in _list_phases(name, model)),
        ),
        _render(
            "conch_model_downloaded_bytes_total",
            "counter",
            "Bytes that this pod has read from sources.",
            (("", {"model": name}, each.downloaded) for name, each in progress.items()),
        ),
        _render(
            "conch_model_peer_bytes_total",
            "counter",
            "Bytes that this pod has read from other pods of the service.",
            (("", {"model": name}, each.from_pods) for name, each in progress.items()),
        ),
        _render(
            "conch_model_cache_files_total",
            "counter",
            "Files that the cache had (hit), and that this pod has downloaded into it (miss).",
            (
                ("", {"model": name, "result": result}, count)
                for name, each in progress.items()
                for result, count in (("hit", each.hits), ("miss", each.misses))
            ),
        ),
        _render(
            "conch_model_cache_waits_total",
            "counter",
            "Files for which this pod has waited while another one downloaded them.",
            (("", {"model": name}, each.waits) for name, each in progress.items()),
        ),
        _render(
            "conch_model_cache_evicted_bytes_total",
            "counter",
            "Bytes of unused files that were deleted from the cache for the model.",
            (("", {"model": name}, each.evicted) for name, each in progress.items()),
        ),
        _render("conch_pod_start_time_seconds", "gauge", "Start of the agent.", [("", {}, times.started)]),
        _render("conch_pod_ready_time_seconds", "gauge", "First readiness.", _list_time(times.ready)),
        _render("conch_pod_first_answer_time_seconds", "gauge", "First answer after it.", _list_time(times.answered)),
    ]
    return "".join(families)


def _list_phases(name: str, model: ModelMetrics) -> Iterator[_Sample]:
    for phase, count in model.counts.items():
        labels = {"model": name, "phase": phase.value}
        yield "_sum", labels, model.seconds[phase]
        yield "_count", labels, count


def _list_time(value: float) -> Iterable[_Sample]:
    return [("", {}, value)] if value else []


def _render(name: str, kind: str, meaning: str, samples: Iterable[_Sample]) -> str:
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    for suffix, labels, value in samples:
        pairs = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
        lines.append(f"{name}{suffix}{f'{{{pairs}}}' if pairs else ''} {value!r}")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
