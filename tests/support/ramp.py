"""How services fared under one ramp: in a sentence each, and in a picture side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Course:
    """One service: seconds since the beginning of the ramp, everywhere."""

    title: str
    latencies: list[tuple[float, float | None]]  # p99 of each second, in milliseconds
    replicas: list[tuple[float, int, int]]  # desired, ready

    @property
    def worst(self) -> float:
        """The largest p99 of a second, in milliseconds."""
        return max(value for _, value in self.latencies if value is not None)

    @property
    def replica_seconds(self) -> float:
        """Seconds for which pods were ready, all together: what the latency cost."""
        pairs = zip(self.replicas, self.replicas[1:], strict=False)
        return sum(ready * (after - at) for (at, _, ready), (after, _, _) in pairs if at >= 0)

    def __str__(self) -> str:
        """The title, the worst p99 and the cost, in one line."""
        most = max(ready for _, _, ready in self.replicas)
        cost = f"{self.replica_seconds:.0f} replica-seconds, up to {most} pods"
        return f"{self.title}: worst p99 {self.worst:.0f} ms, {cost}"


def draw(courses: list[Course], file: Path) -> None:
    """Draw latency over replicas, a column a service, on the same axes."""
    figure = Figure(figsize=(5 * len(courses), 5), layout="constrained")
    top, bottom = figure.subplots(2, len(courses), sharex=True, sharey="row")
    for place, course in enumerate(courses):
        latency, replicas = top[place], bottom[place]
        latency.plot(*zip(*[(at, value) for at, value in course.latencies if value is not None], strict=True))
        latency.set_title(course.title, fontsize="medium")
        latency.set_yscale("log")
        latency.grid(alpha=0.3)
        at = [moment for moment, _, _ in course.replicas]
        replicas.plot(at, [want for _, want, _ in course.replicas], "--", color="grey", label="desired")
        replicas.plot(at, [there for _, _, there in course.replicas], color="tab:green", label="ready")
        replicas.set_ylim(bottom=0)
        replicas.yaxis.set_major_locator(MaxNLocator(integer=True))
        replicas.set_xlabel("seconds")
        replicas.grid(alpha=0.3)
    top[0].set_ylabel("p99, ms")
    bottom[0].set_ylabel("pods")
    bottom[0].legend(loc="upper left", fontsize="small")
    figure.savefig(file)
