"""A real S3 store in the cluster, and a user who uploads models to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import obstore
import yaml
from obstore.exceptions import BaseError
from obstore.store import S3Store

from tests.support.kube import Kube, Object
from tests.support.wait import TIMEOUT, until

MANIFEST: Final = Path(__file__).with_name("store.yaml")
PORT: Final = 8333
FILES_PORT: Final = 8888  # of files over plain HTTP, which takes PUT
KEY, PASSWORD = "conch-demo", "conch-demo-secret"


@dataclass(frozen=True)
class Store:
    """The store of one namespace. `address` is where this machine reaches it: host:port."""

    namespace: str
    address: str

    def secret(self, *, name: str = "s3", key: str = KEY, password: str = PASSWORD) -> Object:
        """The storage Secret that a user writes: where the store is for pods, and the credentials."""
        endpoint = f"http://store.{self.namespace}.svc.cluster.local:{PORT}"
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": _settings(endpoint, key, password),
        }

    def upload(self, uri: str, files: Mapping[str, bytes | Path]) -> None:
        """Put files below `s3://bucket/prefix`; the bucket is made on first use."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        store = S3Store(bucket, config=_settings(f"http://{self.address}", KEY, PASSWORD))  # type: ignore[arg-type]
        for name, content in files.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            obstore.put(store, f"{prefix.strip('/')}/{name}".lstrip("/"), data)

    def keep_versions(self, kube: Kube, bucket: str) -> None:
        """Let a bucket keep what is overwritten from now on."""
        command = f"echo s3.bucket.versioning -name {bucket} -enable | weed shell"
        kube.run("exec", "deployment/store", f"--namespace={self.namespace}", "--", "sh", "-c", command)

    def answers(self) -> bool:
        """Whether the store takes a file."""
        try:
            self.upload("s3://probe", {"probe": b"yes"})
        except (BaseError, OSError):
            return False
        return True


def deploy(kube: Kube, namespace: str, node: str = "") -> None:
    """Start the store in a namespace that exists, on a node of that name if one is named, and wait for its pod.

    What it holds goes with its pod: a story that loses a node loses another one.
    """
    objects = list(yaml.safe_load_all(MANIFEST.read_text()))
    if node:
        objects[-1]["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
    kube.apply(objects, namespace)
    kube.run("rollout", "status", "deployment/store", f"--namespace={namespace}", TIMEOUT)


def reach(namespace: str, address: str) -> Store:
    """Return the store once it takes files."""
    store = Store(namespace, address)
    until(store.answers, f"the store at {address} takes a file")
    return store


def _settings(endpoint: str, key: str, password: str) -> dict[str, Any]:
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": password,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
