"""GPUs that are pretended: a node's status has some, so that the real scheduler counts them; Triton runs on its CPU."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from conch.api.kinds import NODE
from tests.support.kube import Kube, KubectlError
from tests.support.wait import until

GPU: Final = "nvidia.com/gpu"


@dataclass(frozen=True)
class Pretended:
    """The GPUs of one node; no other node has any."""

    kube: Kube
    node: str

    def are(self, count: int) -> None:
        """Set the number of GPUs in the node's status, as a device plugin does."""
        amounts = {GPU: str(count)}
        change = json.dumps({"status": {"capacity": amounts, "allocatable": amounts}})
        self.kube.run("patch", "node", self.node, "--subresource=status", "--type=merge", f"--patch={change}")

    def are_no_more(self) -> None:
        """Take them away again; the kubelet leaves out of the allocatable what the capacity lacks."""
        key = GPU.replace("/", "~1")
        remove = [{"op": "remove", "path": f"/status/{where}/{key}"} for where in ("allocatable", "capacity")]
        patch = f"--patch={json.dumps(remove)}"
        until(lambda: self._removed(patch), "the node has no GPUs any more")

    def _removed(self, patch: str) -> bool:
        """Remove them; the kubelet may have written the status in between, from what it remembers."""
        try:
            self.kube.run("patch", "node", self.node, "--subresource=status", "--type=json", patch)
        except KubectlError:
            return all(GPU not in node["status"]["allocatable"] for node in self.kube.list(NODE))
        return False
