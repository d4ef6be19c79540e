"""How random stories run."""

from hypothesis import seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def run_stories(stories: type[RuleBasedStateMachine], part: int, limits: settings) -> None:
    """Run a few stories; derandomized, as in CI, those of the part's own seed.

    Args:
        stories: Their rules.
        part: One of the tests that share the stories out, so that these run in parallel.
        limits: How many stories there are, and how long they are.
    """
    machine = type(f"{stories.__name__}{part}", (stories,), {})
    run_state_machine_as_test(seed(part)(machine) if limits.derandomize else machine, settings=limits)
