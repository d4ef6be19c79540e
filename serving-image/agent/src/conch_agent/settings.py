"""Where the agent finds and puts things: in a pod the contract's paths and ports, in tests others."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conch_contract import names

POD_ROOT: Final = Path("/conch")


@dataclass(frozen=True)
class Settings:
    """Paths and addresses of one agent.

    `max_bytes` refuses models that are larger (0: no limit but the disk).
    """

    root: Path = POD_ROOT
    host: str | None = None
    port: int = names.AGENT_PORT
    triton_host: str = "127.0.0.1"
    triton_grpc_port: int = names.GRPC_PORT
    triton_http_port: int = names.HTTP_PORT
    max_bytes: int = 0

    def _at(self, contract_path: str) -> Path:
        return self.root / Path(contract_path).relative_to(POD_ROOT)

    @property
    def manifest(self) -> Path:
        """The manifest's file."""
        return self._at(names.MANIFEST_DIR) / names.MANIFEST_FILE

    @property
    def storage(self) -> Path:
        """The folder of storage credentials, one file a key; absent for public storage."""
        return self._at(names.STORAGE_SECRET_DIR)

    @property
    def warmup(self) -> Path:
        """The folder in which ConfigMaps of warm-up requests are mounted by name."""
        return self._at(names.WARMUP_DIR)

    @property
    def pvc(self) -> Path:
        """The folder in which claims are mounted by name."""
        return self._at(names.PVC_DIR)

    @property
    def repository(self) -> Path:
        """Triton's model repository."""
        return self._at(names.REPOSITORY_DIR)

    @property
    def downloads(self) -> Path:
        """Where files arrive, on the repository's file system."""
        return self._at(names.DOWNLOAD_DIR)

    @property
    def control_key(self) -> Path:
        """The file of the key that opens Triton's control endpoints."""
        return self._at(names.CONTROL_DIR) / names.CONTROL_KEY_FILE

    @property
    def triton_grpc(self) -> str:
        """Triton's gRPC address."""
        return f"{self.triton_host}:{self.triton_grpc_port}"

    @property
    def triton_http(self) -> str:
        """The root of Triton's HTTP API."""
        return f"http://{self.triton_host}:{self.triton_http_port}"


def from_arguments(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line; without arguments it is a pod's."""
    own = Settings()
    parser = argparse.ArgumentParser(prog="conch-agent", description=__doc__)
    parser.add_argument("--root", type=Path, default=own.root, help="parent of manifest, models, control, ...")
    parser.add_argument("--host", default=own.host, help="address to answer on (default: all)")
    parser.add_argument("--port", type=int, default=own.port, help="port of /status, /ready and /live")
    parser.add_argument("--triton-grpc-port", type=int, default=own.triton_grpc_port)
    parser.add_argument("--triton-http-port", type=int, default=own.triton_http_port)
    parser.add_argument("--max-bytes", type=int, default=own.max_bytes, help="refuse larger models (0: any)")
    given = parser.parse_args(arguments)
    return Settings(
        root=given.root,
        host=given.host,
        port=given.port,
        triton_grpc_port=given.triton_grpc_port,
        triton_http_port=given.triton_http_port,
        max_bytes=given.max_bytes,
    )
