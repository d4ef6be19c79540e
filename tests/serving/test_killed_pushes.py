"""A push that is killed after any byte leaves no half of a file at its target, and the next run goes on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest

from conch.cli.model.manifest import MANIFEST_FILE
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_contract import ModelSource
from conch_contract.verification import SIGNATURE_FILE
from tests.serving.registry import Registry
from tests.serving.store import Store
from tests.support import bundles
from tests.support.plugin import PROGRAM, run_plugin
from tests.support.relay import Relay
from tests.support.wait import until

WEIGHTS = 20_000_000  # bytes: more than a part of an upload
KILLS = 3  # of each target, at bytes that the seed draws
FORMAT = "python"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that is packed and signed, and beside it its archive."""
    root = tmp_path_factory.mktemp("model")
    (root / "plain/data").mkdir(parents=True)
    (root / "plain/model.py").write_text("class TritonPythonModel: ...\n")
    (root / "plain/data/weights.bin").write_bytes(os.urandom(WEIGHTS))
    (root / "key").write_bytes(bundles.write_private(bundles.make_key()))
    run_plugin("model", "pack", root / "plain", "--to", root / "packed", "--version", "1")
    run_plugin("model", "sign", root / "packed", "--key", root / "key")
    run_plugin("model", "pack", root / "packed", "--to", root / "model.tar.zst")
    return root / "packed"


@dataclass(frozen=True)
class Target:
    """A kind of target. `uri` takes a port of this machine and a name."""

    source: Path
    port: int
    uri: Callable[[int, str], str]
    environment: Callable[[int], dict[str, str]]

    def start(self, relay: Relay, name: str) -> subprocess.Popen[str]:
        """Start a push through the relay."""
        return subprocess.Popen(
            [PROGRAM, "model", "push", self.source, self.uri(relay.port, name)],
            env={**os.environ, **self.environment(relay.port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(params=["s3", "oci", "http"])
def target(request: pytest.FixtureRequest, packed: Path, store: Store, registry: Registry) -> Target:
    if request.param == "s3":
        return Target(
            packed,
            store.port,
            lambda _, name: f"s3://pushes/{name}",
            lambda port: {**store.secret, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"},
        )
    if request.param == "oci":
        return Target(
            packed,
            registry.port,
            lambda port, name: f"oci://127.0.0.1:{port}/team/{name}:v1",
            lambda _: {"OCI_PLAIN_HTTP": "true"},
        )
    archive = packed.with_name("model.tar.zst")
    return Target(archive, store.filer_port, _build_url, lambda _: {})


def _build_url(port: int, name: str) -> str:
    return f"http://127.0.0.1:{port}/{name}/model.tar.zst"


async def _fetch(target: Target, name: str, folder: Path) -> str:
    """Fetch what is at the target as an agent does; return its digest."""
    settings = Settings(root=folder)
    for each in (settings.repository, settings.downloads, settings.storage):
        each.mkdir(parents=True)
    secret = target.environment(target.port) or {"unused": "-"}
    for key, value in secret.items():
        (settings.storage / key).write_text(value)
    source = ModelSource(name="m", format=FORMAT, storage_uri=target.uri(target.port, name))
    return (await Preparation(source, settings).prepare(None)).digest


def _check_store(store: Store, name: str, source: Path) -> None:
    """Fail if the prefix has half of a file, or a signature before all files."""
    bucket = store.bucket("pushes")
    found = {meta["path"].removeprefix(f"{name}/") for page in obstore.list(bucket, name) for meta in page}
    for path in found:
        assert bytes(obstore.get(bucket, f"{name}/{path}").bytes()) == (source / path).read_bytes(), path
    if SIGNATURE_FILE in found:
        assert found == {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}


def _is_away(target: Target, name: str, folder: Path) -> bool:
    """Return True if an agent finds nothing there."""
    with pytest.raises(Failure) as caught:
        asyncio.run(_fetch(target, name, folder))
    return caught.value.reason == Reason.NOT_FOUND


def _kill_when_held(process: subprocess.Popen[str], relay: Relay) -> None:
    """Kill a push once the relay holds its bytes, and end its connections there."""
    until(lambda: not relay.flows.is_set(), f"{relay.holds_after} bytes are sent")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    relay.refuses = True
    relay.flows.set()
    relay.close()


def test_a_push_that_is_killed_at_any_byte_goes_on(target: Target, store: Store, tmp_path: Path, packed: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    draw = random.Random(seed)  # noqa: S311  of the bytes at which it is killed
    whole = Relay(target.port)
    process = target.start(whole, "whole")
    assert process.wait(60) == 0, process.communicate()[1]
    digest = run_plugin("model", "inspect", packed)["digest"]
    assert asyncio.run(_fetch(target, "whole", tmp_path / "whole")) == digest

    for number in range(KILLS):
        name, at = f"killed-{seed}-{number}", draw.randrange(1, whole.sent)
        relay = Relay(target.port)
        relay.holds_after = at
        _kill_when_held(target.start(relay, name), relay)
        place = f"killed after {at} of {whole.sent} bytes, seed {seed}"
        if target.source == packed and "s3" in target.uri(0, name):
            _check_store(store, name, packed)
        else:
            assert _is_away(target, name, tmp_path / f"{name}-away"), place

        environment = target.environment(target.port)
        value = run_plugin("model", "push", target.source, target.uri(target.port, name), environment=environment)
        files = {MANIFEST_FILE, *(file["path"] for file in value["files"])}
        expected = files if target.source == packed else {target.source.name}
        assert {*value["sent"], *value["present"]} == expected, place
        assert not {*value["sent"]} & {*value["present"]}, place
        assert asyncio.run(_fetch(target, name, tmp_path / name)) == digest == value["digest"], place


def test_an_archive_that_is_replaced_is_the_old_one_until_all_of_it_is_there(
    store: Store, packed: Path, tmp_path: Path
) -> None:
    archive, relay = packed.with_name("model.tar.zst"), Relay(store.filer_port)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/model.py").write_text("old\n")
    run_plugin("model", "pack", tmp_path / "old", "--to", tmp_path / "old.tar.zst")
    old = run_plugin("model", "push", tmp_path / "old.tar.zst", f"{store.files}/replaced/model.tar.zst")
    relay.holds_after = WEIGHTS // 2
    target = Target(archive, store.filer_port, _build_url, lambda _: {})
    _kill_when_held(target.start(relay, "replaced"), relay)
    assert asyncio.run(_fetch(target, "replaced", tmp_path / "pod")) == old["digest"]
