"""A GitOps controller: it applies what stands in Git, by server-side apply with force, again and again."""

from __future__ import annotations

import json
import threading
from types import TracebackType
from typing import Self

from tests.support.kube import Kube, KubectlError, Object
from tests.support.wait import until

MANAGER = "gitops"


class Git:
    """Applies `manifest` every `period` seconds, from entering `with` to leaving it."""

    def __init__(self, kube: Kube, namespace: str, manifest: Object, period: float = 1.0) -> None:
        self._kube, self._namespace, self._period = kube, namespace, period
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.manifest = manifest
        self.applied = 0
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self.errors

    def rounds(self, count: int = 3) -> None:
        """Wait until it has applied so often from now on."""
        goal = self.applied + count + 1
        until(lambda: self.applied >= goal, f"Git has applied {count} times more", seen=lambda: self.errors)

    def diff(self) -> str:
        """Return the differences that an apply would make; `kubectl diff` exits with 1 if there are any."""
        try:
            return self._apply("diff")
        except KubectlError as error:
            return str(error)

    def _work(self) -> None:
        while not self._stop.wait(self._period):
            try:
                self._apply("apply")
            except Exception as error:  # noqa: BLE001  reported by the thread that waits
                self.errors.append(str(error))
                return
            self.applied += 1

    def _apply(self, verb: str) -> str:
        return self._kube.run(
            *(verb, "--server-side", "--force-conflicts", f"--field-manager={MANAGER}"),
            *(f"--namespace={self._namespace}", "--filename=-"),
            stdin=json.dumps(self.manifest),
        )
