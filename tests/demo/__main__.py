"""Entry point of `python -m tests.demo` (`make demo`)."""

from __future__ import annotations

import os
import sys

from tests.cluster import ClusterError
from tests.demo.story import play
from tests.demo.telling import Telling
from tests.support.kube import KubectlError
from tests.support.place import open_place
from tests.support.wait import TooLateError


def main() -> None:
    """Play the demo; a failure is a sentence, not a traceback."""
    telling = Telling()
    current = os.environ.get("CLUSTER") == "current"
    try:
        with open_place(current=current) as place:
            play(place, telling)
    except (ClusterError, KubectlError, TooLateError) as error:
        telling.failed(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
