"""The part of a kubelet that starts the container of Triton again."""

from __future__ import annotations

import threading

from tests.serving.pod import Pod


class Kubelet:
    """Starts Triton again each time that it ends.

    Attributes:
        restarts: How often it has started Triton again.
    """

    def __init__(self, pod: Pod) -> None:
        self.restarts = 0
        self._pod = pod
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def has_restarted(self, number: int) -> bool:
        """Return True after more than a number of restarts."""
        return self.restarts > number

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            triton = self._pod.triton
            if triton and not triton.running:
                triton.kill()  # the processes of its models end with their container
                if not self._stop.wait(1):
                    self._pod.start_triton()
                    self.restarts += 1
