"""A real Triton with a model that takes the seconds of its input."""

from __future__ import annotations

import asyncio
import json
import shlex
import urllib.error
import urllib.request
from pathlib import Path

from conch.triton import build_server_command
from tests.serving import tools
from tests.serving.processes import Process, until, with_own_shared_memory
from tests.support.ports import free_port

# It takes x seconds; it raises for -1, and answers with an error for -2.
MODEL = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [1]})
        config.set_max_batch_size(0)
        return config

    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "x")) for request in requests]

    def answer(self, x):
        seconds = float(x.as_numpy()[0])
        if seconds == -1:
            raise ValueError("less than nothing")
        if seconds == -2:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("less than nothing"))
        time.sleep(seconds)
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", x.as_numpy())])
"""


# Like a Triton with a GPU, which has the same metric under the same name (docs/metrics.md of the server).
WITH_GPU = MODEL.replace(
    "class TritonPythonModel:",
    """class TritonPythonModel:
    def initialize(self, _args):
        kind = pb_utils.MetricFamily.GAUGE
        self.family = pb_utils.MetricFamily("nv_gpu_utilization", "GPU utilization rate [0.0 - 1.0)", kind)
        self.gauge = self.family.Metric(labels={"gpu_uuid": "GPU-1"})
        self.gauge.set(0.75)
""",
)


class SlowTriton:
    """Triton with one model, on its own address and the common metrics port."""

    def __init__(self, root: Path, address: str, metrics: int, model: str = MODEL) -> None:
        self.root, self.address, self.metrics = root, address, metrics
        self.http = free_port()
        (root / "models" / "m" / "1").mkdir(parents=True)
        (root / "models" / "m" / "1" / "model.py").write_text(model)
        (root / "models" / "m" / "config.pbtxt").write_text('backend: "python"\n')
        (root / "backends").mkdir()
        (root / "backends" / "python").symlink_to(tools.triton().server / "backends" / "python")
        self.process = self.start()

    def start(self) -> Process:
        tree = tools.triton()
        command = [
            "tritonserver",
            f"--model-repository={self.root / 'models'}",
            f"--backend-directory={self.root / 'backends'}",
            f"--http-address={self.address}",
            f"--metrics-address={self.address}",
            f"--http-port={self.http}",
            f"--metrics-port={self.metrics}",
            "--allow-grpc=false",
            *metrics_flags(),
        ]
        environment = {"PATH": tree.path, "HOME": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = Process(with_own_shared_memory(command), self.root / "triton.log", environment)
        until(self.is_ready, "Triton is ready", self.process)
        return self.process

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}:{self.http}/v2/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    async def send(self, seconds: float, times: int = 1) -> None:
        """Send requests one after another. Their errors are ignored."""
        for _ in range(times):
            await asyncio.to_thread(self._send, seconds)

    def _send(self, seconds: float) -> None:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [seconds]}
        body = json.dumps({"inputs": [tensor]}).encode()
        try:
            with urllib.request.urlopen(f"http://{self.address}:{self.http}/v2/models/m/infer", body, timeout=20):
                return
        except urllib.error.HTTPError:
            if seconds >= 0:
                raise


def metrics_flags() -> list[str]:
    """Return the metrics flags that the operator sets, without the port."""
    flags = shlex.split(build_server_command(())[2])
    return [flag for flag in flags if flag.startswith("--metrics-config")]
