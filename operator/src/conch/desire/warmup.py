"""The program of the warm-up Job: requests to a revision through its Service until the latency is stable."""

from conch.api import InferenceService
from conch.decide import Decision
from conch.desire.jobs import Program, format_host
from conch.observe import Revision


def build_due_program(decision: Decision, revision: Revision) -> Program:
    """Return the program for the pods that a candidate needs now."""
    return build_program(decision.track.service, revision, decision.needed)


def build_program(service: InferenceService, revision: Revision, pods: int) -> Program:
    """Return the program.

    Args:
        service: The service.
        revision: The revision, whose manifest has a warm-up.
        pods: Number of pods to reach.
    """
    return Program.build(revision, f"--host={format_host(service, revision.name)}", f"--pods={pods}")
