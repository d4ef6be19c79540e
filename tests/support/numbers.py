"""A number of a Deployment over time: every value that it was ever seen to have."""

from __future__ import annotations

import subprocess
import threading
from types import TracebackType
from typing import Self

from tests.support.kube import Kube
from tests.support.wait import until


class Numbers:
    """The values of one field (`.spec.replicas`, for example), watched from entering to leaving; an absent one is 0."""

    def __init__(self, kube: Kube, namespace: str, name: str, field: str) -> None:
        self.seen: list[int] = []
        output = f'--output=jsonpath={{{field}}}{{"\\n"}}'
        arguments = ["get", "deployment", name, f"--namespace={namespace}", "--watch", output]
        self._process = kube.start(*arguments, stdout=subprocess.PIPE)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self.seen, "the watch shows a number")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._thread.join(10)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.seen.append(int(line.strip() or 0))
