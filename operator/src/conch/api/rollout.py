"""Rollout of a new revision: strategy, steps, gates and the reaction to a failure."""

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from conch.api._base import DurationText, Part, cel_is_duration, duration_rule, duration_seconds
from conch.api.analysis import JOB_METRICS, Gates
from conch.api.cel import Rule, rules

MANUAL: Final = "Manual"  # a pause that a user ends


class StepInForce(Part):
    """A step in force: one of the spec, or the last one, with weight 100."""

    weight: int | None = None
    """Weight of the candidate from this step on, in percent."""
    pause: str | None = None
    """Duration of the pause, or Manual."""
    analysis: str | None = None
    """Duration of the analysis."""

    @property
    def pause_seconds(self) -> float | None:
        """Duration of the pause in seconds; None: a manual pause, or no pause."""
        return None if self.pause in {None, MANUAL} else duration_seconds(self.pause or "")

    @property
    def analysis_seconds(self) -> float:
        """Minimum duration of the analysis in seconds; 0: no analysis."""
        return duration_seconds(self.analysis) if self.analysis else 0.0


class Step(Part):
    """A step of a rollout: exactly one of weight, pause and analysis."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "[has(self.weight), has(self.pause), has(self.analysis)].filter(set, set).size() == 1",
                message="a step has exactly one of weight, pause and analysis; split it, or remove the others",
            ),
        )
    )

    weight: Annotated[int | None, Field(ge=0, le=100)] = None
    """Weight of the candidate from this step on, in percent, from 0 to 100. The step ends when the traffic has that
    weight."""
    pause: Annotated[
        str | None,
        Field(max_length=32),
        Rule(
            f"self == '{MANUAL}' || ({cel_is_duration()})",
            message=f"a pause must be {MANUAL} or a duration up to 8760h, such as 30s or 10m; write one of them",
        ),
    ] = None
    """Pause at the current weight: a duration, such as 10m, or Manual. A manual pause ends when a user promotes the
    candidate."""
    analysis: Annotated[DurationText | None, duration_rule(low="1s", example="5m")] = None
    """Minimum duration for which the gates of rollout.analysis evaluate the candidate at the current weight. The step
    ends when all gates have passed, and waits while one is inconclusive."""


WITHOUT_STEPS: Final = {"Recreate": "ends the old pods before the new ones start"}
"""The strategies that follow no steps of the spec, and why."""
WITHOUT_STABLE: Final = {"Recreate": "ends the old pods before the new ones start"}
"""The strategies under which the two revisions do not answer at the same time, and why."""


def _build_strategy_rules() -> Iterator[Rule]:
    """Yield the rules of strategies without steps, and of gates that need the stable revision."""
    gates = [field for field, metric in JOB_METRICS.items() if metric.needs_stable]
    for strategy, why in WITHOUT_STEPS.items():
        yield Rule(
            f"!has(self.steps) || !has(self.strategy) || self.strategy != '{strategy}'",
            message=f"strategy {strategy} {why}, so it has no steps; remove steps, or set strategy to Progressive",
            path=".steps",
        )
    for strategy, why in WITHOUT_STABLE.items():
        for gate in gates:
            yield Rule(
                f"!has(self.analysis) || !has(self.strategy) || self.strategy != '{strategy}'"
                f" || !self.analysis.exists(gate, has(gate.{gate}))",
                message=f"strategy {strategy} {why}, so a {gate} gate has no stable revision to compare with; remove"
                f" the {gate} gate, or set strategy to Progressive",
                path=".analysis",
            )
    for gate in gates:
        yield Rule(
            "!has(self.analysis) || !has(self.onInsufficientCapacity) || self.onInsufficientCapacity != 'Recreate'"
            f" || !self.analysis.exists(gate, has(gate.{gate}))",
            message=f"onInsufficientCapacity Recreate ends the old pods first if GPUs are insufficient, so a {gate}"
            " gate has no stable revision to compare with; remove the gate, or set onInsufficientCapacity to Hold",
            path=".analysis",
        )


class Rollout(Part):
    """Rollout of a new revision."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.steps) || self.steps.filter(s, has(s.weight)).map(s, s.weight).isSorted()",
                message="the weights of the steps must not decrease; sort them in ascending order",
                path=".steps",
            ),
            *_build_strategy_rules(),
            Rule(
                "!has(self.steps) || has(self.analysis) || !self.steps.exists(s, has(s.analysis))",
                message="an analysis step needs gates; add gates to rollout.analysis, or remove the step",
                path=".steps",
            ),
            Rule(
                "!has(self.steps) || !self.steps.exists(s, has(s.analysis))"
                " || (has(self.steps[0].weight) && self.steps[0].weight > 0)",
                message="an analysis needs requests to the candidate; begin the steps with a weight above 0",
                path=".steps",
            ),
        )
    )

    strategy: Literal["Progressive", "Recreate", "Swap"] = "Progressive"
    """Progressive: the candidate starts beside the stable revision and takes over by steps. Recreate: the pods of the
    stable revision end before those of the candidate start; requests fail in between. For nodes without capacity for
    both. Swap: the pods of the stable revision load the candidate's models, by the same steps; a single pod loads it
    while it serves, and all requests follow at once. A change of other fields is Progressive."""
    on_insufficient_capacity: Literal["Hold", "Recreate", "Surge", "Swap"] = "Hold"
    """Reaction of a Progressive rollout to insufficient free GPUs for the candidate's pods beside the stable ones.
    Hold: the rollout waits for GPUs without pods, and the stable revision serves. Recreate: the rollout follows the
    strategy Recreate, without steps. Swap: it follows the strategy Swap, or waits. Surge:
    the pods are created and wait for nodes, for clusters with node autoscaling."""
    steps: Annotated[tuple[Step, ...], Field(max_length=32)] = ()
    """Steps by which the candidate takes over, in order. After the last one its weight is 100. Empty: weight 100 as
    soon as it is ready."""
    analysis: Gates = ()
    """Gates that the candidate has to pass. A gate that fails ends the rollout at any step with a weight above 0; a
    parity gate is evaluated before the first request of a client."""
    on_failure: Literal["Rollback", "Pause"] = "Rollback"
    """Reaction to a candidate that fails. Rollback: the stable revision gets all requests, and the candidate ends.
    Pause: the weights stay until a user promotes or aborts; while no pod of the candidate is ready, the stable revision
    gets its requests."""
    progress_deadline: Annotated[DurationText, duration_rule(low="1s", example="15m")] = "15m"
    """Maximum time without progress, such as 15m, after which the candidate fails. Pauses do not count."""
    history_limit: Annotated[int, Field(ge=0, le=100)] = 10
    """Number of retired revisions that are kept for a rollback."""

    @property
    def may_swap(self) -> bool:
        """True if a candidate may be served by the stable revision's pods: they then share the requests."""
        return "Swap" in {self.strategy, self.on_insufficient_capacity}

    @property
    def progress_deadline_seconds(self) -> float:
        """The progress deadline in seconds."""
        return duration_seconds(self.progress_deadline)
