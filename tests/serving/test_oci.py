"""Models in a registry: what is listed and fetched, who may read it, and what later pods of a revision fetch."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from aiohttp import web

from conch_agent.expansion import list_models
from conch_agent.fetch import Fetch
from conch_agent.object_versions import find_versions, list_files
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.sources import open_source
from conch_agent.sources.oci import OciSource
from conch_contract import ModelSource
from tests.serving.certificates import issued
from tests.serving.pod import Pod
from tests.serving.processes import until
from tests.serving.registry import (
    PASSWORD,
    USER,
    Front,
    Registry,
    TokenService,
    build_manifest,
    build_secret,
    serve_front,
    serve_tokens,
)
from tests.serving.test_formats import DOUBLE, X
from tests.support.relay import Relay

NAME = "team/model"
LARGE = b"large" * 1000
FILES = {"README.md": b"# A model\n", "model.bin": LARGE, "onnx/1/model.onnx": LARGE[::-1], "onnx/1/empty": b""}
PLAIN = {"OCI_PLAIN_HTTP": "true"}
LOGIN = (f"--username={USER}", f"--password={PASSWORD}")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that takes every request."""
    with Registry(tmp_path_factory.mktemp("registry")) as served:
        served.push(f"{NAME}:v1", FILES)
        yield served


@pytest.fixture
def front(registry: Registry) -> Iterator[Front]:
    with serve_front(registry) as served:
        yield served


async def fetch(source: OciSource, folder: Path) -> dict[str, bytes]:
    """Fetch the files of a source as the agent does; return them by path."""
    return read_files((await Fetch(source, folder).run(await source.list_files())).files)


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_settings(folder: Path, secret: Mapping[str, str]) -> Settings:
    settings = Settings(root=folder)
    for each in (settings.storage, settings.repository, settings.downloads):
        each.mkdir(parents=True)
    for key, value in secret.items():
        (settings.storage / key).write_text(value)
    return settings


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", FILES),
        ("/", FILES),
        ("/onnx", {name[5:]: content for name, content in FILES.items() if name.startswith("onnx/")}),
        ("/onnx/1/", {"model.onnx": LARGE[::-1], "empty": b""}),
        ("/onnx/1/model.onnx", {"model.onnx": LARGE[::-1]}),
    ],
)
async def test_an_artifact_a_folder_or_a_file_is_fetched(
    registry: Registry, tmp_path: Path, path: str, expected: dict[str, bytes]
) -> None:
    source = OciSource(f"oci://{registry.host}/{NAME}:v1{path}", PLAIN)
    assert await fetch(source, tmp_path) == expected


async def test_a_client_of_registries_pulls_the_same_files(registry: Registry, tmp_path: Path) -> None:
    registry.run_oras("pull", f"{registry.host}/{NAME}:v1", folder=tmp_path)
    theirs = read_files(tmp_path)
    assert theirs == await fetch(OciSource(f"oci://{registry.host}/{NAME}:v1", PLAIN), tmp_path / "agent")


async def test_a_digest_names_what_a_moved_tag_named(registry: Registry) -> None:
    first = registry.push("moved:v1", {"model.onnx": b"1"})
    registry.push("moved:v1", {"model.onnx": b"22"})
    for reference, size in ((":v1", 2), (f"@{first}", 1), (f":v1@{first}", 1)):
        [item] = (await OciSource(f"oci://{registry.host}/moved{reference}", PLAIN).list_files()).items
        assert item.size == size


async def test_an_index_has_a_manifest_for_each_platform(registry: Registry, tmp_path: Path) -> None:
    own = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    for architecture in (own, "s390x"):
        files = {"model.onnx": architecture.encode()}
        registry.push(f"index:{architecture}", files, "--artifact-platform", f"linux/{architecture}")
    registry.run_oras("manifest", "index", "create", f"{registry.host}/index:all", "s390x", own, folder=tmp_path)
    source = OciSource(f"oci://{registry.host}/index:all", PLAIN)
    assert await fetch(source, tmp_path / "files") == {"model.onnx": own.encode()}
    versions = await find_versions(source, await source.list_files())
    digest = registry.run_oras("resolve", f"{registry.host}/index:all", folder=tmp_path).strip()
    assert versions == {"": digest}, "of the index, from which each pod selects"


async def test_a_modelpack_of_raw_layers(registry: Registry, tmp_path: Path) -> None:
    registry.push("pack:files", {"model.onnx": LARGE})
    [item] = (await OciSource(f"oci://{registry.host}/pack:files", PLAIN).list_files()).items
    layer = {"mediaType": "application/vnd.cncf.model.weight.v1.raw", "digest": item.digest, "size": item.size}
    annotations = {"org.cncf.model.filepath": "1/model.onnx"}
    kind = "application/vnd.cncf.model.manifest.v1+json"
    registry.push_manifest("pack:v1", build_manifest([{**layer, "annotations": annotations}], artifactType=kind))
    assert await fetch(OciSource(f"oci://{registry.host}/pack:v1", PLAIN), tmp_path) == {"1/model.onnx": LARGE}


async def test_a_name_outside_of_the_folder_is_refused(registry: Registry) -> None:
    registry.push("unsafe:files", {"model.onnx": b"1"})
    [item] = (await OciSource(f"oci://{registry.host}/unsafe:files", PLAIN).list_files()).items
    layer = {"mediaType": "application/octet-stream", "digest": item.digest, "size": item.size}
    for number, name in enumerate(
        ("../a", "/etc/passwd", "a/../../b", "a//b", "a/", "./a", "a\\b", "a\nb", "a" * 1025)
    ):
        annotations = {"org.opencontainers.image.title": name}
        registry.push_manifest(f"unsafe:{number}", build_manifest([{**layer, "annotations": annotations}]))
        with pytest.raises(Failure, match=r"plain relative names|names of up to 255 bytes") as raised:
            await OciSource(f"oci://{registry.host}/unsafe:{number}", PLAIN).list_files()
        assert raised.value.reason == Reason.UNSAFE_PATH


async def test_a_login_by_password(tmp_path: Path) -> None:
    with Registry.with_password(tmp_path / "registry") as registry:
        registry.push(f"{NAME}:v1", FILES, *LOGIN)
        uri = f"oci://{registry.host}/{NAME}:v1"
        assert await fetch(OciSource(uri, PLAIN | build_secret(registry.host)), tmp_path / "files") == FILES
        for secret, part in (
            ({}, f"Write a login of {registry.host} as .dockerconfigjson into the Secret"),
            (build_secret(registry.host, password="wrong"), f"Correct user and password of {registry.host}"),
            (build_secret("other.example"), f"Add a login of {registry.host} to .dockerconfigjson"),
        ):
            with pytest.raises(Failure) as raised:
                await OciSource(uri, PLAIN | secret).list_files()
            assert raised.value.reason == Reason.ACCESS_DENIED
            assert part in raised.value.message
            assert "wrong" not in raised.value.message


@pytest.fixture
def tokens() -> Iterator[TokenService]:
    with serve_tokens() as served:
        yield served


@pytest.fixture
def private(tokens: TokenService, tmp_path: Path) -> Iterator[Registry]:
    """A registry with a token service."""
    with Registry(tmp_path / "private", tokens.write_auth(tmp_path / "private")) as served:
        served.push(f"{NAME}:v1", FILES, *LOGIN)
        tokens.requests.clear()
        yield served


async def test_a_login_by_token(private: Registry, tokens: TokenService, tmp_path: Path) -> None:
    """The registry verifies the token's signature, audience and rights."""
    with serve_front(private) as front:
        uri, secret = f"oci://{front.host}/{NAME}:v1", build_secret(front.host)
        assert await fetch(OciSource(uri, PLAIN | secret), tmp_path / "files") == FILES
        [(query, login)] = tokens.requests
        assert query == {"service": "registry of the tests", "scope": f"repository:{NAME}:pull"}, "reads alone"
        assert login.startswith("Basic ")
        sent = [authorization.partition(" ")[0] for _, authorization, _ in front.requests]
        assert sent == ["", *["Bearer"] * (len(sent) - 1)], "the registry itself does not get the password"

        tokens.requests.clear()
        with pytest.raises(Failure, match=r"the token service 127\.0\.0\.1 refused access") as raised:
            await OciSource(uri, PLAIN | build_secret(front.host, password="wrong")).list_files()
        assert raised.value.reason == Reason.ACCESS_DENIED
        assert "incorrect username or password" in raised.value.message
        with pytest.raises(Failure, match="Write a login of") as raised:
            await OciSource(uri, PLAIN).list_files()
        assert raised.value.reason == Reason.ACCESS_DENIED
        assert tokens.requests[-1][1] == "", "an anonymous token was tried"


async def test_an_expired_token_is_renewed(private: Registry, tokens: TokenService, tmp_path: Path) -> None:
    with serve_front(private) as front:
        source = OciSource(f"oci://{front.host}/{NAME}:v1", PLAIN | build_secret(front.host))
        listing = await source.list_files()
        challenge = {"WWW-Authenticate": f'Bearer realm="{tokens.url}/token",service="registry of the tests"'}
        expired = {front.requests[-1][1]}

        def expire(request: web.Request) -> web.Response | None:
            is_expired = request.headers.get("Authorization", "") in expired
            expired.clear()
            return web.Response(status=401, headers=challenge) if is_expired else None

        front.fault = expire
        assert read_files((await Fetch(source, tmp_path / "files").run(listing)).files) == FILES
        assert not expired
        assert len(tokens.requests) == 2


async def test_a_registry_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    certificate, key, authority = issued(tmp_path / "tls")
    with Registry.with_password(tmp_path / "registry", (certificate, key)) as registry:
        registry.push(f"{NAME}:v1", FILES, *LOGIN)
        uri, secret = f"oci://{registry.host}/{NAME}:v1", build_secret(registry.host)
        with pytest.raises(Failure, match=r"unknown issuer.*Put the issuer's certificate into ca\.crt") as raised:
            await OciSource(uri, secret).list_files()
        assert raised.value.reason == Reason.UNREACHABLE
        source = OciSource(uri, {**secret, "ca.crt": authority.read_text()})
        assert await fetch(source, tmp_path / "files") == FILES


async def test_a_registry_without_tls_needs_the_key(registry: Registry) -> None:
    with pytest.raises(Failure, match=r"does not speak TLS.*write OCI_PLAIN_HTTP=true into the storage") as raised:
        await OciSource(f"oci://{registry.host}/{NAME}:v1", {}).list_files()
    assert raised.value.reason == Reason.UNREACHABLE


async def test_later_pods_fetch_the_digest_that_the_first_one_served(registry: Registry, tmp_path: Path) -> None:
    first = registry.push("later:v1", {"model.onnx": b"first"})
    source = OciSource(f"oci://{registry.host}/later:v1", PLAIN)
    versions = await find_versions(source, await source.list_files())
    assert versions == {"": first}, "one digest, whatever the number of files"
    registry.push("later:v1", {"model.onnx": b"later", "added": b""})
    listing, problem = await list_files(source, versions)
    assert problem == ""
    fetched = await Fetch(source, tmp_path).run(listing)
    assert read_files(fetched.files) == {"model.onnx": b"first"}

    registry.delete("later", first)
    listing, problem = await list_files(source, versions)
    assert len(listing.items) == 2, "the digest of the files decides whether it is the same"
    assert f"no longer has the manifest {first}" in problem


async def test_a_read_goes_on_from_an_offset_also_without_ranges(front: Front) -> None:
    content = os.urandom(3 << 20)
    front.registry.push("ranges:v1", {"model.bin": content})
    source = OciSource(f"oci://{front.host}/ranges:v1", PLAIN)
    [item] = (await source.list_files()).items
    assert b"".join([chunk async for chunk in source.read(item, 1 << 20)]) == content[1 << 20 :]
    assert front.requests[-1][2] == f"bytes={1 << 20}-{(3 << 20) - 1}", "some registries take no range without an end"
    front.fault = lambda _: web.Response(body=content)
    assert b"".join([chunk async for chunk in source.read(item, 1 << 20)]) == content[1 << 20 :]


async def test_a_blob_with_other_bytes_is_refused_and_fetched_again(front: Front, tmp_path: Path) -> None:
    front.fault = lambda request: web.Response(body=LARGE[::-1]) if "/blobs/" in request.path else None
    source = OciSource(f"oci://{front.host}/{NAME}:v1/model.bin", PLAIN)
    with pytest.raises(Failure, match=r"was fetched with the digest .*, and .* is declared") as raised:
        await fetch(source, tmp_path)
    assert raised.value.reason == Reason.DIGEST_MISMATCH
    assert not list((tmp_path / "files").iterdir())
    front.fault = lambda _: None
    assert await fetch(source, tmp_path) == {"model.bin": LARGE}


async def test_a_config_with_other_bytes_configures_nothing(front: Front, tmp_path: Path) -> None:
    """It is read before the files are fetched."""
    front.registry.push("config:v1", {"config.pbtxt": b"max_batch_size: 2", "1/model.py": DOUBLE.encode()})
    settings = write_settings(tmp_path, PLAIN)
    front.fault = lambda request: web.Response(text="max_batch_size: 3") if "/blobs/" in request.path else None
    uri = f"oci://{front.host}/config:v1"
    preparation = Preparation(ModelSource(name="m", format="triton", storage_uri=uri), settings)
    with pytest.raises(Failure, match=r"config\.pbtxt was fetched with the digest") as raised:
        await preparation.prepare(None)
    assert raised.value.reason == Reason.DIGEST_MISMATCH
    front.fault = lambda _: None
    assert (await preparation.prepare(None)).versions == (1,)


async def test_the_models_of_a_repository_are_folders_of_the_artifact(registry: Registry, tmp_path: Path) -> None:
    config = b'backend: "python"\n'
    files = {"README.md": b"", "a/config.pbtxt": config, "a/1/model.py": b"a", "b/config.pbtxt": config}
    registry.push("several:v1", files | {"b/1/model.py": b"b"})
    settings, uri = write_settings(tmp_path, PLAIN), f"oci://{registry.host}/several:v1"
    parts = await list_models(ModelSource(name="a", format="repository", storage_uri=uri), settings)
    for part in parts:
        listing = await open_source(part.source.storage_uri, settings).list_files()
        assert listing.identity == part.identity
        assert sorted(str(item.path) for item in listing.items) == ["1/model.py", "config.pbtxt"]
    assert [part.source.storage_uri for part in parts] == [f"{uri}/a", f"{uri}/b"]


def test_triton_serves_a_model_of_a_registry_in_later_pods_too(private: Registry, pod: Pod, tmp_path: Path) -> None:
    files = {"README.md": b"# A model\n", "python/model.py": DOUBLE.encode(), "python/factor.py": b"FACTOR = 2"}
    digest = private.push("double:v1", files, *LOGIN)
    pod.write_secret(PLAIN)
    source = ModelSource(name="m", format="python", storage_uri=f"oci://{private.host}/double:v1/python")
    pod.write_manifest(source)
    pod.start()
    assert "Write a login of" in pod.until_reason("AccessDenied").message
    pod.write_secret(build_secret(private.host))
    pod.until_ready()
    assert pod.infer("m", X)["y"] == [3.0, 4.0]
    served = pod.until_reported()
    assert served.object_versions == {"": digest}
    pod.stop()

    private.push("double:v1", files | {"python/factor.py": b"FACTOR = 3"}, *LOGIN)
    later = Pod(tmp_path / "later")
    try:
        later.write_secret(PLAIN | build_secret(private.host))
        pins = {"digest": served.digest, "object_versions": served.object_versions}
        later.write_manifest(source.model_copy(update=pins))
        later.start()
        later.until_ready()
        assert later.infer("m", X)["y"] == [3.0, 4.0], "the tag has moved, and the revision has not"
    finally:
        later.stop()


def test_a_killed_agent_resumes(registry: Registry, pod: Pod) -> None:
    content = os.urandom(8 << 20)
    files = {"1/model.py": DOUBLE.encode(), "1/factor.py": b"FACTOR = 2", "1/weights.bin": content}
    registry.push("large:v1", files)
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
