"""Follows a service to Ready and prints each change once: phases of revisions, conditions, events."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.demo.reporter import Reporter
from tests.support.service import Service
from tests.support.wait import EVERY, TooLateError


def is_served(service: Service) -> bool:
    """Return True if the service is Ready."""
    return bool(service.condition("Ready").get("status") == "True")


def is_rolled_back(service: Service) -> bool:
    """Return True if the service's candidate has failed."""
    return bool((service.status.get("rollout") or {}).get("phase") == "Failed")


def follow(
    service: Service,
    reporter: Reporter,
    printed: set[str],
    is_over: Callable[[Service], bool] = is_served,
    seconds: float = 120,
) -> None:
    """Print each change until the story of a service is over.

    Args:
        service: whose story.
        reporter: prints the lines.
        printed: the lines that are printed already; grows.
        is_over: whether it is over; by default when the service is Ready.
        seconds: the deadline.

    Raises:
        TooLateError: it is not within `seconds`; the text is the operator's own reason.
    """
    deadline = time.monotonic() + seconds
    done = False
    while not done:
        done = is_over(service)
        if time.monotonic() > deadline and not done:
            message = service.condition("Ready").get("message")
            raise TooLateError(f"{service.name}: not over within {seconds:g} s. The condition Ready has: {message}")
        time.sleep(EVERY)  # also before the last look: events are written after the status
        for subject, value, words in _lines(service):
            mark = f"{subject}|{value}|{words}"
            if mark not in printed:
                printed.add(mark)
                reporter.line(subject, value, words)


def _lines(service: Service) -> list[tuple[str, str, str]]:
    """Return the present state as lines: subject, value, words."""
    status = service.status
    lines = [(f"event {e['reason']}", e["type"], e.get("note", "")) for e in service.events()]
    for revision in status.get("revisions", ()):
        models = [f"{m['name']}: {m['state']}" for m in revision.get("models", ())]
        replicas = revision["replicas"]
        words = f"{replicas['ready']}/{replicas['desired']} pods ready" + "".join(f", {model}" for model in models)
        lines.append((f"revision {revision['name']}", revision["phase"], words))
    lines += [(f"condition {c['type']}", c["status"], c.get("message", "")) for c in status.get("conditions", ())]
    return lines
