"""How a change of the predictor reaches users: its steps, its gates, and what a failure does."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from conch.api._base import DURATION_PATTERN, NOT_LONGER, UNREADABLE, Duration, Part, duration_seconds
from conch.api.analysis import Gate, Gates, named
from conch.api.cel import Rule, rules

MANUAL: Final = "Manual"  # a pause that a person ends


class StepInForce(Part):
    """A step in force: one of the spec, or the last one, with weight 100."""

    weight: int | None = None
    """The candidate's share of the requests from this step on, in percent."""
    pause: str | None = None
    """How long to stay: a duration, or Manual."""
    analysis: str | None = None
    """How long the gates look at the candidate."""

    @property
    def pause_seconds(self) -> float | None:
        """The length of a pause in seconds; None if only a person ends it, or if it is no pause."""
        return None if self.pause in {None, MANUAL} else duration_seconds(self.pause or "")

    @property
    def analysis_seconds(self) -> float:
        """The least length of an analysis in seconds; 0 if it is none."""
        return duration_seconds(self.analysis) if self.analysis else 0.0


class Step(Part):
    """One step of a rollout: a share of the requests, or a wait."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "[has(self.weight), has(self.pause), has(self.analysis)].filter(said, said).size() == 1",
                message="a step is exactly one of weight, pause and analysis; split it, or remove what is too much",
            ),
        )
    )

    weight: Annotated[int | None, Field(ge=0, le=100)] = None
    """The candidate's share of the requests from now on, in percent. The step is over when the traffic follows."""
    pause: Annotated[
        str | None,
        Field(max_length=32),
        Rule(
            f"self == '{MANUAL}' || self.matches('{DURATION_PATTERN}')",
            message=f"a pause is a duration, such as 30s or 10m, or the word {MANUAL}; write one of them",
        ),
        NOT_LONGER,
    ] = None
    """How long to stay: a duration, or Manual: until somebody promotes the candidate."""

    analysis: Annotated[
        Duration | None,
        Rule(
            f"{UNREADABLE} || duration(self) >= duration('1s')",
            message="an analysis takes at least 1s; write a longer time, such as 5m",
        ),
    ] = None
    """How long the gates of rollout.analysis look at the candidate. All must pass; while one cannot tell, it waits."""


class Rollout(Part):
    """How a change of the predictor reaches users."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.steps) || self.steps.filter(s, has(s.weight)).map(s, s.weight).isSorted()",
                message="the weights of the steps go down; sort them so that each is at least the one before",
                path=".steps",
            ),
            Rule(
                "!has(self.steps) || !has(self.strategy) || self.strategy != 'Recreate'",
                message="Recreate ends the old pods before the new ones start, so there is nothing to share out;"
                " remove steps, or set strategy to Progressive",
                path=".steps",
            ),
            Rule(
                "!has(self.analysis) || !has(self.strategy) || self.strategy != 'Recreate'"
                " || !self.analysis.exists(gate, has(gate.parity))",
                message="Recreate ends the old pods before the new ones start, so there is no stable revision to"
                " compare with; remove the parity gate, or set strategy to Progressive",
                path=".analysis",
            ),
            Rule(
                "!has(self.analysis) || !has(self.onInsufficientCapacity) || self.onInsufficientCapacity != 'Recreate'"
                " || !self.analysis.exists(gate, has(gate.parity))",
                message="onInsufficientCapacity: Recreate ends the old pods first where GPUs are short, so the parity"
                " gate has no stable revision to compare with; remove the gate, or set onInsufficientCapacity to Hold",
                path=".analysis",
            ),
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

    strategy: Literal["Progressive", "Recreate"] = "Progressive"
    """Progressive: the new revision comes up beside the old one. Recreate: the old pods end first, and requests
    fail in between; for when there is no room for both."""
    on_insufficient_capacity: Literal["Hold", "Recreate", "Surge"] = "Hold"
    """What a Progressive rollout does where the GPUs that are free do not suffice for its pods beside the old ones.
    Hold: it waits without pods until they do, and the old revision serves on. Recreate: it goes as that strategy does,
    without steps. Surge: it starts its pods all the same, for clusters that add nodes for pods that find none."""
    steps: Annotated[tuple[Step, ...], Field(max_length=32)] = ()
    """By which shares the new revision takes over; all of it follows the last one. Empty: all at once."""
    analysis: Gates = ()
    """The gates that the new revision has to pass. From its first request on, a gate that fails ends the rollout;
    parity is evaluated before it."""
    on_failure: Literal["Rollback", "Pause"] = "Rollback"
    """What happens to a revision that fails: Rollback sends all requests to the old one and ends the new one;
    Pause keeps the weights until a user promotes or aborts; while no pod of the new one is ready, the old one gets its
    requests."""
    progress_deadline: Annotated[
        Duration,
        Rule(
            f"{UNREADABLE} || duration(self) >= duration('1s')",
            message="progressDeadline must be at least 1s, such as 15m",
        ),
    ] = "15m"
    """How long a new revision may take without progress before it counts as failed. Pauses do not count."""
    history_limit: Annotated[int, Field(ge=0, le=100)] = 10
    """How many retired revisions are kept to go back to."""

    @property
    def parity(self) -> Gate | None:
        """The gate that compares answers, with its name."""
        return next((gate for gate in named(self.analysis) if gate.parity is not None), None)

    @property
    def progress_deadline_seconds(self) -> float:
        """The progress deadline in seconds."""
        return duration_seconds(self.progress_deadline)
