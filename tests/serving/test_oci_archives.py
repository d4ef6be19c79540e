"""Models that a client of registries has packed: folders, kits and images, as files of the model."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from backports import zstd

from conch_agent.download import Progress
from conch_agent.expansion import list_models
from conch_agent.layout import SERVED
from conch_agent.model_fetch import ModelFetch
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.record import compute_digest
from conch_agent.settings import Settings
from conch_agent.warmup.folder import fetch_requests
from conch_contract import ModelSource, Warmup
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.registry import Front, Registry, build_manifest, serve_front
from tests.serving.test_formats import DOUBLE, X
from tests.serving.test_oci import PLAIN, read_files, write_settings
from tests.support.relay import Relay
from tests.support.tars import file, pack, pack_files, special

FILES = {
    "config.pbtxt": b'backend: "python"\n',
    "1/model.py": DOUBLE.encode(),
    "1/factor.py": b"FACTOR = 2",
    "1/weights.bin": os.urandom(300_000),
}
DIGEST = compute_digest({name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()})
IMAGE = "application/vnd.oci.image.layer.v1.tar+gzip"
KIT = "application/vnd.kitops.modelkit.model.v1.tar+gzip"
PACK = "application/vnd.cncf.model.weight.v1.tar"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as served:
        yield served


@pytest.fixture
def front(registry: Registry) -> Iterator[Front]:
    with serve_front(registry) as served:
        yield served


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def push_folder(registry: Registry, name: str, folder: Path) -> None:
    """Push a folder with ORAS, which packs it."""
    write_files(folder / "packed", FILES)
    registry.run_oras("push", f"{registry.host}/{name}", "packed", folder=folder)


def push_layers(registry: Registry, name: str, *layers: tuple[str, bytes], **annotations: str) -> None:
    """Push blobs as the layers of a manifest."""
    described: list[dict[str, Any]] = []
    for number, (media_type, content) in enumerate(layers):
        repository = name.partition(":")[0]
        registry.push(f"{repository}:blob-{number}", {"blob": content})
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        described.append({"mediaType": media_type, "digest": digest, "size": len(content), "annotations": annotations})
    registry.push_manifest(name, build_manifest(described))


def prepare(folder: Path, uri: str, **fields: Any) -> Preparation:
    settings = fields.pop("settings", None) or write_settings(folder, PLAIN)
    return Preparation(ModelSource(name="m", format="triton", storage_uri=uri, **fields), settings)


def find_left_over(settings: Settings) -> set[str]:
    return {path.name for path in (settings.downloads / "m").iterdir()} - {"files", "parts", "laid", SERVED}


@pytest.fixture(params=["a folder of oras", "a kit", "a modelpack", "zstd", "an image", "files beside an archive"])
def packed(request: pytest.FixtureRequest, registry: Registry, tmp_path: Path) -> str:
    """A storageUri of the model, packed in one of the ways."""
    name = request.param.replace(" ", "-")
    path = ""
    match request.param:
        case "a folder of oras":
            push_folder(registry, f"{name}:v1", tmp_path)
            path = "/packed"
        case "a kit":
            push_layers(registry, f"{name}:v1", (KIT, gzip.compress(pack_files(FILES))))
        case "a modelpack":
            layers = [(PACK, pack_files({each: content})) for each, content in FILES.items()]
            push_layers(registry, f"{name}:v1", *layers, **{"org.cncf.model.filepath": "x"})
        case "zstd":
            media_type = PACK.replace("tar", "tar+zstd")
            push_layers(registry, f"{name}:v1", (media_type, zstd.compress(pack_files(FILES))))
        case "an image":
            base = pack(special("bin", tarfile.SYMTYPE, "usr/bin"), file("models/1/old.bin", b"1"))
            model = pack_files({f"models/{each}": content for each, content in FILES.items()})
            changes = pack_files({"models/1/.wh.old.bin": b""})
            push_layers(registry, f"{name}:v1", *((IMAGE, gzip.compress(each)) for each in (base, model, changes)))
        case _:
            write_files(tmp_path / "push", FILES)
            registry.run_oras("push", f"{registry.host}/{name}:v1", "config.pbtxt", "1", folder=tmp_path / "push")
    return f"oci://{registry.host}/{name}:v1{path}"


async def test_a_packed_model_has_the_digest_of_its_files(packed: str, tmp_path: Path) -> None:
    settings = write_settings(tmp_path / "pod", PLAIN)
    preparation = prepare(tmp_path, packed, settings=settings)
    model = await preparation.prepare(None)
    assert model.digest == DIGEST
    assert model.size == sum(map(len, FILES.values()))
    served = read_files(preparation.target)
    assert {name: content for name, content in served.items() if name.startswith("1/")} == {
        name: content for name, content in FILES.items() if name.startswith("1/")
    }
    assert find_left_over(settings) == set(), "archives and copies are deleted"
    assert await preparation.prepare(model) == model
    assert len(model.object_versions) == 1


async def test_a_client_of_registries_unpacks_the_same_files(registry: Registry, tmp_path: Path) -> None:
    push_folder(registry, "same:v1", tmp_path)
    registry.run_oras("pull", f"{registry.host}/same:v1", "--output", str(tmp_path / "pulled"), folder=tmp_path)
    settings = write_settings(tmp_path / "pod", PLAIN)
    fetch = ModelFetch(
        ModelSource(name="m", format="triton", storage_uri=f"oci://{registry.host}/same:v1"), settings, Progress()
    )
    source, listing = await fetch.unpack(*await open_listed(fetch))
    assert read_files((await fetch.run(source, listing)).files) == read_files(tmp_path / "pulled")


async def open_listed(fetch: ModelFetch) -> tuple[Any, Any]:
    source = await fetch.open("")
    return source, await source.list_files()


async def test_pods_with_a_cache_unpack_once(front: Front, tmp_path: Path) -> None:
    push_layers(front.registry, "cached:v1", (KIT, gzip.compress(pack_files(FILES))))
    (tmp_path / "claim").mkdir()
    models = []
    for name in ("a", "b"):
        settings = write_settings(tmp_path / name, PLAIN)
        settings.cache.symlink_to(tmp_path / "claim")
        models.append(await prepare(tmp_path, f"oci://{front.host}/cached:v1", settings=settings).prepare(None))
        assert models[-1].cache_problem == ""
    assert [model.digest for model in models] == [DIGEST, DIGEST]
    assert len([path for path in front.paths if "/blobs/" in path]) == 1
    first, second = (tmp_path / name / "models" / "repository" / "m" / "1" / "weights.bin" for name in ("a", "b"))
    assert first.samefile(second)

    front.fault = lambda _: pytest.fail("the cache has it")
    settings = write_settings(tmp_path / "c", PLAIN)
    settings.cache.symlink_to(tmp_path / "claim")
    later = prepare(tmp_path, f"oci://{front.host}/cached:v1", settings=settings, digest=DIGEST)
    assert (await later.prepare(None)).digest == DIGEST


async def test_a_model_that_is_none_is_unpacked_once(front: Front, tmp_path: Path) -> None:
    push_layers(front.registry, "none:v1", (KIT, gzip.compress(pack_files({"readme.txt": b"1"}))))
    preparation = prepare(tmp_path, f"oci://{front.host}/none:v1")
    for _ in range(2):
        with pytest.raises(Failure) as raised:
            await preparation.prepare(None)
        assert raised.value.reason == Reason.NOT_A_MODEL
    assert len([path for path in front.paths if "/blobs/" in path]) == 1


async def test_an_archive_of_another_content_is_fetched_once(front: Front, tmp_path: Path) -> None:
    push_layers(front.registry, "another:v1", (KIT, gzip.compress(pack_files(FILES))))
    preparation = prepare(tmp_path, f"oci://{front.host}/another:v1", digest=f"sha256:{'0' * 64}")
    for _ in range(2):
        with pytest.raises(Failure) as raised:
            await preparation.prepare(None)
        assert raised.value.reason == Reason.CONTENT_CHANGED
    assert len([path for path in front.paths if "/blobs/" in path]) == 1


async def test_an_archive_with_other_bytes_is_not_unpacked(front: Front, tmp_path: Path) -> None:
    content = gzip.compress(pack_files(FILES))
    push_layers(front.registry, "other:v1", (KIT, content))
    other = content[:-1] + bytes([content[-1] ^ 1])
    front.fault = lambda request: web.Response(body=other) if "/blobs/" in request.path else None
    with pytest.raises(Failure) as raised:
        await prepare(tmp_path, f"oci://{front.host}/other:v1").prepare(None)
    assert raised.value.reason == Reason.DIGEST_MISMATCH


async def test_a_repository_in_an_archive_is_refused(registry: Registry, tmp_path: Path) -> None:
    push_layers(registry, "repository:v1", (KIT, pack_files({"a/config.pbtxt": b""})))
    source = ModelSource(name="a", format="repository", storage_uri=f"oci://{registry.host}/repository:v1")
    with pytest.raises(Failure, match="has its files in archives") as raised:
        await list_models(source, write_settings(tmp_path, PLAIN))
    assert raised.value.reason == Reason.UNSUPPORTED


async def test_requests_of_a_warm_up_are_in_the_archive(registry: Registry, tmp_path: Path) -> None:
    push_layers(registry, "warm:v1", (KIT, pack_files({**FILES, "requests/1.json": b"{}"})))
    source = ModelSource(
        name="m",
        format="triton",
        storage_uri=f"oci://{registry.host}/warm:v1",
        warmup=Warmup(path="requests"),
    )
    files = await fetch_requests(source, write_settings(tmp_path / "pod", PLAIN), tmp_path / "scratch")
    assert read_files(files) == {"requests/1.json": b"{}"}


def test_triton_serves_an_image_of_a_model(registry: Registry, pod: Pod) -> None:
    """As KServe's modelcars have it: the model is in the folder /models."""
    layers = [gzip.compress(pack_files({f"models/{name}": content})) for name, content in FILES.items()]
    push_layers(registry, "modelcar:v1", *((IMAGE, layer) for layer in layers))
    pod.write_secret(PLAIN)
    pod.write_manifest(ModelSource(name="m", format="triton", storage_uri=f"oci://{registry.host}/modelcar:v1"))
    pod.start()
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [3.0, 4.0]
    assert pod.until_reported().digest == DIGEST


def test_an_agent_killed_in_the_download_of_an_archive_resumes(registry: Registry, pod: Pod) -> None:
    content = gzip.compress(pack_files({**FILES, "1/large.bin": os.urandom(8 << 20)}), 1)
    push_layers(registry, "large:v1", (KIT, content))
    relay = Relay(registry.port, rate=2 << 20)
    pod.write_secret(PLAIN)
    pod.write_manifest(ModelSource(name="m", format="triton", storage_uri=f"oci://127.0.0.1:{relay.port}/large:v1"))
    pod.start_agent()
    until(lambda: pod.model().bytes_fetched > 3 << 20, "a part is fetched", pod.agent)
    assert pod.agent
    pod.agent.kill()
    before, relay.rate = relay.passed, 0
    pod.start_agent()
    pod.start_triton()
    pod.until_ready()
    assert relay.passed - before < len(content) - (2 << 20), "only the rest is fetched"
    relay.close()
