"""Paths and addresses of the agent: in a pod those of the contract, in tests those of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from conch_contract import names

POD_ROOT: Final = Path("/conch")


@dataclass(frozen=True)
class Settings:
    """Paths and addresses of an agent.

    Attributes:
        root: Parent of the contract's folders.
        host: Address of the agent's endpoints; None: all addresses.
        port: Port of the agent's endpoints.
        triton_host: Triton's address.
        triton_grpc_port: Port of Triton's gRPC API.
        triton_http_port: Port of Triton's HTTP API.
        max_bytes: Size of the largest model that is accepted; 0: the disk is the limit.
        cache_bytes: Size that the cache on the claim may have; 0: the claim is the limit.
        peers: Names in DNS of the service's pods, each with a port behind a colon, unless it is the own one.
        trace_rates: By model, the number of requests of which Triton traces one; 0: it traces none.
    """

    root: Path = POD_ROOT
    host: str | None = None
    port: int = names.AGENT_PORT
    triton_host: str = "127.0.0.1"
    triton_grpc_port: int = names.GRPC_PORT
    triton_http_port: int = names.HTTP_PORT
    max_bytes: int = 0
    cache_bytes: int = 0
    peers: tuple[str, ...] = ()
    trace_rates: Mapping[str, int] = field(default_factory=dict)

    def _resolve(self, contract_path: str) -> Path:
        return self.root / Path(contract_path).relative_to(POD_ROOT)

    def read_revision(self) -> str:
        """Return the revision that is assigned to the pod; empty: that of all pods."""
        with suppress(OSError):
            return (self._resolve(names.MANIFEST_DIR) / names.REVISION_FILE).read_text().strip()
        return ""

    def find_manifest(self, revision: str = "") -> Path:
        """Return the manifest's file: that of a revision, or else that of all pods.

        Args:
            revision: Name of the revision; empty: that of all pods.
        """
        folder = self._resolve(names.MANIFEST_DIR)
        own = folder / f"{revision}.json"
        return own if revision and own.is_file() else folder / names.MANIFEST_FILE

    @property
    def policy(self) -> Path:
        """The file of the namespace's signature policy; absent where it has none."""
        return self._resolve(names.MANIFEST_DIR) / names.POLICY_FILE

    @property
    def storage(self) -> Path:
        """The folder of storage credentials, one file a key; absent for public storage."""
        return self._resolve(names.STORAGE_SECRET_DIR)

    def find_secret(self, name: str) -> Path:
        """Return the folder of the credentials of a model.

        Args:
            name: Name of the Secret among several; empty: the only one.
        """
        return self._resolve(names.STORAGE_SECRETS_DIR) / name if name else self.storage

    @property
    def warmup(self) -> Path:
        """The folder in which ConfigMaps of warm-up requests are mounted by name."""
        return self._resolve(names.WARMUP_DIR)

    @property
    def trust(self) -> Path:
        """The folder in which ConfigMaps of trusted keys are mounted by name."""
        return self._resolve(names.TRUST_DIR)

    @property
    def decryption(self) -> Path:
        """The folder in which Secrets of age identities are mounted by name."""
        return self._resolve(names.DECRYPTION_DIR)

    @property
    def pvc(self) -> Path:
        """The folder in which claims are mounted by name."""
        return self._resolve(names.PVC_DIR)

    @property
    def repository(self) -> Path:
        """Triton's model repository."""
        return self._resolve(names.REPOSITORY_DIR)

    @property
    def downloads(self) -> Path:
        """The folder of fetched files, on the repository's file system."""
        return self._resolve(names.DOWNLOAD_DIR)

    @property
    def decrypted(self) -> Path:
        """The folder of decrypted files, on the repository's file system."""
        return self._resolve(names.DECRYPTED_DIR)

    @property
    def cache(self) -> Path:
        """The claim that pods share as a cache; absent without predictor.cache."""
        return self._resolve(names.CACHE_DIR)

    @property
    def pod_id(self) -> Path:
        """The file with the pod's name in the cache, which lives as long as the pod."""
        return self._resolve(names.MODELS_DIR) / "pod-id"

    @property
    def control_key(self) -> Path:
        """The file of the control key."""
        return self._resolve(names.CONTROL_DIR) / names.CONTROL_KEY_FILE

    @property
    def triton_grpc(self) -> str:
        """Triton's gRPC address."""
        return f"{self.triton_host}:{self.triton_grpc_port}"

    @property
    def triton_http(self) -> str:
        """The root of Triton's HTTP API."""
        return f"http://{self.triton_host}:{self.triton_http_port}"


def parse_arguments(arguments: Sequence[str] | None = None) -> Settings:
    """Return the settings of a command line. Without options they are those of a pod.

    Args:
        arguments: The command line; None: that of the process.
    """
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="conch-agent", description=__doc__)
    parser.add_argument("--root", type=Path, default=defaults.root, help="parent of manifest, models, control, ...")
    parser.add_argument("--host", default=defaults.host, help="address to answer on (default: all)")
    parser.add_argument("--port", type=int, default=defaults.port, help="port of /status, /ready and /live")
    parser.add_argument("--triton-grpc-port", type=int, default=defaults.triton_grpc_port)
    parser.add_argument("--triton-http-port", type=int, default=defaults.triton_http_port)
    parser.add_argument("--max-bytes", type=int, default=defaults.max_bytes, help="refuse larger models (0: any)")
    parser.add_argument("--cache-bytes", type=int, default=defaults.cache_bytes, help="size of the cache (0: any)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME[:PORT]", help="other agents, by DNS")
    parser.add_argument("--trace-rate", type=_parse_rate, action="append", default=[], metavar="MODEL=RATE")
    options = parser.parse_args(arguments)
    return Settings(
        root=options.root,
        host=options.host,
        port=options.port,
        triton_grpc_port=options.triton_grpc_port,
        triton_http_port=options.triton_http_port,
        max_bytes=options.max_bytes,
        cache_bytes=options.cache_bytes,
        peers=tuple(options.peer),
        trace_rates=dict(options.trace_rate),
    )


def _parse_rate(text: str) -> tuple[str, int]:
    """Return the model and the rate of an option.

    >>> _parse_rate("magika=10")
    ('magika', 10)
    """
    model, _, rate = text.rpartition("=")
    return model, int(rate)
