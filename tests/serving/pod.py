"""A serving pod as plain processes: the agent, Triton with the operator's command line, and their shared folders."""

from __future__ import annotations

import json
import shlex
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from conch_contract import AgentReport, ModelManifest, ModelReport, ModelSource, ModelState, SignaturePolicy, names
from tests.serving import tools
from tests.serving.processes import Process, until, with_own_shared_memory
from tests.support.ports import free_port, listens

BACKENDS = tools.REPOSITORY / "serving-image" / "backends"
RESTRICTION = ",".join(names.RESTRICTED_APIS) + f":{names.CONTROL_HEADER}"


class Pod:
    """One pod below `root`; its containers start and stop one by one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.http, self.grpc, self.metrics, self.port = (free_port() for _ in range(4))
        self.repository = root / "models" / "repository"
        self.downloads = root / "models" / "downloads"
        self.agent: Process | None = None
        self.triton: Process | None = None
        self._backends = root / "backends"
        self._backends.mkdir(parents=True)
        server = tools.triton().server
        own = sorted(file.parent for file in BACKENDS.glob("*/*/model.py"))
        for backend in (server / "backends" / "python", *own):
            (self._backends / backend.name).symlink_to(backend)

    def write_manifest(self, *models: ModelSource) -> None:
        """Write the ConfigMap's file, whole, as the kubelet does."""
        self.write_whole_manifest(ModelManifest(models=models))

    def write_whole_manifest(self, manifest: ModelManifest) -> None:
        """Write the ConfigMap's file with all fields of a manifest."""
        self._write("manifest", names.MANIFEST_FILE, manifest.to_json())

    def write_manifest_of(
        self, revision: str, *models: ModelSource, is_default: bool = False, in_place: bool = False
    ) -> None:
        """Write the file of one revision, or the one of pods to which none is assigned."""
        manifest = ModelManifest(models=models, revision=revision, in_place=in_place)
        self._write("manifest", names.MANIFEST_FILE if is_default else f"{revision}.json", manifest.to_json())

    def write_policy(self, policy: SignaturePolicy) -> None:
        """Write the ConfigMap's file with the policy of the namespace."""
        self._write("manifest", names.POLICY_FILE, policy.to_json())

    def assign(self, revision: str) -> None:
        """Write the pod's annotation with its revision, as the kubelet does after a change; empty: it has none."""
        self._write("manifest", names.REVISION_FILE, revision)

    def write_secret(self, secret: Mapping[str, str], name: str = "") -> None:
        """Mount a storage Secret; with a name, that of one of several models."""
        for key, value in secret.items():
            self._write(f"storage-secrets/{name}" if name else "storage", key, value)

    def write_config_map(self, name: str, data: Mapping[str, str]) -> None:
        """Mount a ConfigMap of warm-up requests; without data, the empty folder of a missing one."""
        (self.root / "warmup" / name).mkdir(parents=True, exist_ok=True)
        for key, value in data.items():
            self._write(f"warmup/{name}", key, value)

    def mount_keys(self, name: str, data: Mapping[str, str]) -> None:
        """Mount a ConfigMap of trusted keys."""
        for key, value in data.items():
            self._write(f"trust/{name}", key, value)

    def mount_identities(self, name: str, data: Mapping[str, str]) -> None:
        """Mount a Secret of age identities."""
        for key, value in data.items():
            self._write(f"decryption/{name}", key, value)

    def _write(self, folder: str, name: str, text: str) -> None:
        place = self.root / folder
        place.mkdir(exist_ok=True, parents=True)
        (place / f"..{name}").write_text(text)
        (place / f"..{name}").replace(place / name)

    def start(self, program: str = "conch-agent") -> None:
        """Start both containers in a pod's order: Triton once the agent is live."""
        self.start_agent(program=program)
        self.start_triton()

    def start_agent(self, *options: str, program: str = "conch-agent", env: Mapping[str, str] | None = None) -> None:
        """Start the agent. By its name it is a process whose imports are done; by its path it imports.

        `env` are additional variables of its container.
        """
        command = [
            program,
            f"--root={self.root}",
            "--host=127.0.0.1",
            f"--port={self.port}",
            f"--triton-grpc-port={self.grpc}",
            f"--triton-http-port={self.http}",
            *options,
        ]
        environment = {"PATH": tools.triton().path, "PYTHONUNBUFFERED": "1", **(env or {})}
        self.agent = Process(command, self.root / "agent.log", environment)
        until(lambda: self._get("/live")[0] == 200, "the agent is live", self.agent)

    def start_triton(
        self,
        *args: str,
        restricted: bool = True,
        age: int = 4000,
        grace: int = 5000,
        shm_size: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start Triton through a shell that reads the key, as the operator renders it; `args` are the user's.

        `shm_size` limits its /dev/shm. `env` are additional variables of its container.
        """
        ports = (self.http, self.grpc, self.metrics)  # a killed Triton's backend process may hold them for a moment
        until(lambda: not any(listens(port) for port in ports), "its ports are free")
        tree = tools.triton()
        key = shlex.quote(str(self.root / "control" / "key"))
        flags = [
            f"--model-repository={self.repository}",
            "--model-control-mode=explicit",
            "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1",
            "--metrics-address=127.0.0.1",
            f"--http-port={self.http}",
            f"--grpc-port={self.grpc}",
            f"--metrics-port={self.metrics}",
            f"--grpc-max-connection-age={age}",
            f"--grpc-max-connection-age-grace={grace}",
            "--strict-readiness=false",
            f"--backend-directory={self._backends}",
            f"--cache-directory={tree.server / 'caches'}",
        ]
        if restricted:
            flags += [
                f"--http-restricted-api={RESTRICTION}=$(cat {key})",
                f"--grpc-restricted-protocol={RESTRICTION}=$(cat {key})",
            ]
        command = ["/bin/sh", "-c", f'exec tritonserver {" ".join(flags)} "$@"', "sh", *args]
        environment = {"PATH": tree.path, "HOME": str(self.root), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        self.triton = Process(with_own_shared_memory(command, shm_size), self.root / "triton.log", environment)

    def stop(self) -> None:
        """Stop the processes, Triton first, as in a pod."""
        for process in (self.triton, self.agent):
            if process and process.running:
                process.kill()

    @property
    def report(self) -> AgentReport:
        return AgentReport.model_validate_json(self._get("/status")[1])

    def model(self, name: str = "m") -> ModelReport:
        """Return the report of a model."""
        found = [model for model in self.report.models if model.name == name]
        return found[0] if found else ModelReport(name=name, state=ModelState.PENDING)

    @property
    def ready(self) -> bool:
        return self._get("/ready")[0] == 200

    def until_ready(self) -> None:
        until(lambda: self.ready, "the pod is ready", self.agent)

    def until_reason(self, reason: str, name: str = "m") -> ModelReport:
        """Wait for a model's reason; return its report."""
        return self._until_report(lambda report: report.reason == reason, f"{name} has the reason {reason}", name)

    def until_reported(self, name: str = "m") -> ModelReport:
        """Wait until the report of a model is Ready, which follows when the agent has verified its content."""
        return self._until_report(lambda report: report.state == ModelState.READY, f"{name} is reported ready", name)

    def _until_report(self, is_right: Callable[[ModelReport], bool], what: str, name: str) -> ModelReport:
        """Return the report that is right: the next one may be that of a later manifest."""

        def find() -> ModelReport | None:
            report = self.model(name)
            return report if is_right(report) else None

        return until(find, what, self.agent)

    def infer(
        self,
        model: str,
        inputs: list[dict[str, Any]],
        version: str = "",
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, list[Any]]:
        """Send a request over HTTP, like a user without a client library; return the data of the outputs by name."""
        path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
        body = json.dumps({"inputs": inputs, "parameters": parameters or {}}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", body, dict(headers or {}))
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return {output["name"]: output["data"] for output in json.load(answer)["outputs"]}

    def triton_config(self, model: str) -> dict[str, Any]:
        """Return the configuration that Triton uses."""
        return self._read_triton(f"/v2/models/{model}/config")

    def statistics(self, model: str) -> dict[str, Any]:
        """Return Triton's statistics of a model's version."""
        return self.all_statistics(model)[0]

    def all_statistics(self, model: str) -> list[dict[str, Any]]:
        """Return Triton's statistics of each version of a model."""
        found: list[dict[str, Any]] = self._read_triton(f"/v2/models/{model}/stats")["model_stats"]
        return found

    def read_metrics(self) -> str:
        """Return Triton's metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=20) as answer:
            return str(answer.read().decode())

    def read_agent_metrics(self) -> dict[str, float]:
        """Return the samples of the agent's metrics by name and labels, as they stand on the page."""
        lines = (line for line in self._get(names.METRICS_PATH)[1].splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def _read_triton(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=20) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""
