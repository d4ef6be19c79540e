"""A real S3 store (SeaweedFS) on loopback, and a user who uploads to it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from tests.serving import tools
from tests.serving.processes import Process, until
from tests.support.ports import free_port

KEY, SECRET = "conch-test", "conch-test-secret"
PUBLIC = "consoles"  # a bucket that needs no credentials
VERSIONED = "versioned"  # a bucket that keeps the versions of its objects; its owner needs no credentials


class Store:
    """The store; every bucket is made by its name. With a certificate and its key it answers HTTPS too.

    `roles` are providers of identities, and the roles that they may assume.
    """

    def __init__(
        self, folder: Path, certificate: tuple[Path, Path] | None = None, roles: Mapping[str, object] | None = None
    ) -> None:
        self._folder = folder
        self._roles = roles
        self._certificate = certificate
        self.objects: list[tuple[str, str]] = []  # bucket and key of what was uploaded by `put`
        self.port, self.https_port, self.filer_port = free_port(), free_port(), free_port()
        identity = {
            "name": "conch",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        actions = [*(f"{action}:{PUBLIC}" for action in ("Read", "Write", "List")), f"Admin:{VERSIONED}"]
        anonymous = {"name": "anonymous", "actions": actions}

        (folder / "data").mkdir(parents=True)
        (folder / "s3.json").write_text(json.dumps({"identities": [identity, anonymous]}))
        self.process = self._start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def secret(self) -> dict[str, str]:
        """The storage Secret that a user would write."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    @property
    def files(self) -> str:
        """The URL of its files over plain HTTP, which takes PUT."""
        return f"http://127.0.0.1:{self.filer_port}"

    def bucket(self, name: str) -> S3Store:
        return S3Store(name, config=self.secret)  # type: ignore[arg-type]  # a Secret is text

    def put(self, bucket: str, files: Mapping[str, bytes | Path]) -> None:
        """Upload; the bucket is made on first use."""
        for key, content in files.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            obstore.put(self.bucket(bucket), key, data)
            self.objects.append((bucket, key))

    def delete_since(self, count: int) -> None:
        """Delete the objects that `put` has uploaded after so many."""
        added = set(self.objects[count:])
        del self.objects[count:]
        for bucket in {bucket for bucket, _ in added}:
            obstore.delete(self.bucket(bucket), [key for other, key in added if other == bucket])

    def put_raw(self, key: str, content: bytes = b"") -> None:
        """Upload to the public bucket under a key that clients correct, such as a folder marker's."""
        self.put(PUBLIC, {"ready": b""})
        self._request("PUT", f"{PUBLIC}/{quote(key)}", content)

    def set_versioning(self, status: Literal["Enabled", "Suspended"] = "Enabled") -> None:
        """Switch the versioning of the bucket VERSIONED."""
        self.put(VERSIONED, {"ready": b""})
        body = f"<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>"
        self._request("PUT", f"{VERSIONED}?versioning=", body.encode())

    def remove_version(self, key: str, version: str) -> None:
        """Delete one version of an object in VERSIONED, as a lifecycle rule does."""
        self._request("DELETE", f"{VERSIONED}/{quote(key)}?versionId={quote(version)}")

    def deny_versions(self, prefix: str) -> None:
        """Refuse versions of objects below a prefix of VERSIONED; the current content may be read."""
        statement = {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:GetObjectVersion",
            "Resource": f"arn:aws:s3:::{VERSIONED}/{prefix}/*",
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        self._request("PUT", f"{VERSIONED}?policy=", json.dumps(policy).encode())

    def allow_versions(self) -> None:
        """Remove what `deny_versions` set."""
        self._request("DELETE", f"{VERSIONED}?policy=")

    def _request(self, method: str, path: str, content: bytes = b"") -> None:
        request = urllib.request.Request(f"{self.endpoint}/{path}", content, method=method)  # noqa: S310
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310

    def _start(self) -> Process:
        master, volume = free_port(), free_port()
        command = [
            str(tools.weed()),
            "server",
            f"-dir={self._folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-master.port={master}",
            f"-master.port.grpc={free_port()}",
            "-master.volumeSizeLimitMB=256",
            f"-volume.port={volume}",
            f"-volume.port.grpc={free_port()}",
            "-volume.max=400",  # a bucket takes seven at once, and a worker's tests make a bucket each
            "-filer",
            f"-filer.port={self.filer_port}",
            f"-filer.port.grpc={free_port()}",
            "-s3",
            f"-s3.port={self.port}",
            f"-s3.port.grpc={free_port()}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=true",
            f"-s3.config={self._folder / 's3.json'}",
        ]
        if self._roles:
            (self._folder / "iam.json").write_text(json.dumps(self._roles))
            command += [f"-s3.iam.config={self._folder / 'iam.json'}"]
        if self._certificate:
            command += [f"-s3.port.https={self.https_port}"]
            command += [f"-s3.cert.file={self._certificate[0]}", f"-s3.key.file={self._certificate[1]}"]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self._folder), "TMPDIR": str(self._folder)}
        process = Process(command, self._folder / "seaweedfs.log", environment)
        until(self._takes_a_file, "the store takes a file", process)
        return process

    def _takes_a_file(self) -> bool:
        try:
            self.put("ready", {"ready": b"yes"})
        except (BaseError, OSError):
            return False
        return True
