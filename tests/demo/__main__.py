"""Entry point of `python -m tests.demo` (`make demo`)."""

from __future__ import annotations

import os
import sys

from tests.cluster import ClusterError
from tests.demo.reporter import Reporter
from tests.demo.story import NAMESPACE, play
from tests.support.evidence import waiting_containers
from tests.support.kube import KubectlError
from tests.support.place import SYSTEM, open_place
from tests.support.wait import TooLateError


def main() -> None:
    """Play the demo; a failure is a sentence, not a traceback."""
    reporter = Reporter()
    current = os.environ.get("CLUSTER") == "current"
    waiting: list[str] = []
    try:
        with open_place(current=current, metrics_server=False) as place:
            try:
                play(place, reporter)
            except (KubectlError, TooLateError):
                waiting = waiting_containers(place.kube, SYSTEM, NAMESPACE)
                raise
    except (ClusterError, KubectlError, TooLateError) as error:
        reporter.print_failure("\n".join([str(error), *waiting]))
        sys.exit(1)


if __name__ == "__main__":
    main()
