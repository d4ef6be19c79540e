"""A storageUri of a registry, its storage Secret, and the documents that a registry answers."""

from __future__ import annotations

import base64
import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.base import Archives, Item, Listing
from conch_agent.sources.network import NETWORK_KEYS
from conch_agent.sources.oci import OciSource
from conch_agent.sources.oci_challenge import Challenge, parse_challenges
from conch_agent.sources.oci_documents import Index, Manifest, parse_document, select_manifest
from conch_agent.sources.oci_layers import list_layers
from conch_agent.sources.oci_settings import KEYS, DockerLogin, Login, OciSettings, find_login, parse_settings
from conch_agent.sources.oci_uri import Artifact, parse_uri
from conch_agent.sources.storage_secret import read_secret
from conch_contract.schemes import SCHEMES

DIGEST = f"sha256:{'0a' * 32}"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TITLE = "org.opencontainers.image.title"
LOGIN = base64.b64encode(b"me:sec:ret").decode()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("oci://r.example/name:v1", Artifact("r.example", "name", "v1")),
        ("oci://r.example:5000/a/b-c_d.e:v1.0_x-y", Artifact("r.example:5000", "a/b-c_d.e", "v1.0_x-y")),
        ("oci://registry:5000/name:5000", Artifact("registry:5000", "name", "5000")),
        (f"oci://r.example/name@{DIGEST}", Artifact("r.example", "name", DIGEST)),
        (f"oci://r.example/name:v1@{DIGEST}/a", Artifact("r.example", "name", DIGEST, "a")),
        ("oci://r.example/name:v1/", Artifact("r.example", "name", "v1", is_folder=True)),
        ("oci://r.example/name:v1/a b/c:2@d", Artifact("r.example", "name", "v1", "a b/c:2@d")),
        ("oci://docker.io/name:v1", Artifact("docker.io", "library/name", "v1")),
        ("oci://index.docker.io/a/b:v1", Artifact("docker.io", "a/b", "v1")),
        ("oci://R.example/a/b:V1", Artifact("r.example", "a/b", "V1")),
    ],
)
def test_a_uri(uri: str, expected: Artifact) -> None:
    assert parse_uri(uri) == expected


@pytest.mark.parametrize(
    "uri",
    [
        *("oci://", "oci://name:v1", "oci://r.example/", "oci://r.example/name", "oci://r.example/name/path"),
        *("oci:///name:v1", "oci://r.example/Name:v1", "oci://r.example/a//b:v1", "oci://r.example/name:"),
        *("oci://r.example/name@sha256:ab", f"oci://r.example/name@{DIGEST}0", f"oci://r.example/name@{DIGEST}:v1"),
        *("oci://r.example/name:v1?a", "oci://r.example/name:v1#a", "oci://me:secret@r.example/name:v1"),
        *(f"oci://r.example/name:{'a' * 129}", "oci://r.example/name:-v1", "oci://r.example/na me:v1"),
        *("oci://r.example:a/name:v1", "oci://r_.example/name:v1", "oci://r.example/../name:v1"),
        *("oci://[fd00::1]:5000/name:v1", "oci://r.example//name:v1"),
    ],
)
def test_a_uri_of_another_form(uri: str) -> None:
    with pytest.raises(Failure) as raised:
        OciSource(uri, {})
    assert raised.value.reason == Reason.UNSUPPORTED
    assert "Write oci://registry.example/name:tag or oci://registry.example/name:tag/path" in raised.value.message


def test_docker_hub_answers_at_another_host() -> None:
    assert parse_uri("oci://docker.io/a/b:v1").api_host == "registry-1.docker.io"
    assert parse_uri("oci://r.example:5000/a/b:v1").api_host == "r.example:5000"


def _refuse(values: dict[str, str], reason: Reason = Reason.INVALID_SECRET) -> str:
    with pytest.raises(Failure) as raised:
        parse_settings(values)
    assert raised.value.reason == reason
    return raised.value.message


WRITE = {
    ".dockerconfigjson": "kubectl create secret docker-registry",
    "OCI_PLAIN_HTTP": "true or false",
}
WRONG = [
    (".dockerconfigjson", "secret"),
    (".dockerconfigjson", "[" * 10_000),
    (".dockerconfigjson", "{}"),
    (".dockerconfigjson", '{"auths": {}}'),
    (".dockerconfigjson", '{"auths": {"r.example": "secret"}}'),
    (".dockerconfigjson", '{"auths": {"r.example": {"auth": ["secret"]}}}'),
    ("OCI_PLAIN_HTTP", "maybe"),
]


def test_every_key_has_its_row() -> None:
    assert set(WRITE) == set(KEYS) - set(NETWORK_KEYS)
    assert {key for key, _ in WRONG} == set(WRITE)


@pytest.mark.parametrize("key", WRITE)
def test_an_empty_value(key: str) -> None:
    message = _refuse({key: " "})
    assert message.startswith(f"{key} in the storage Secret is empty. ")
    assert WRITE[key] in message


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_value_of_the_wrong_form(key: str, value: str) -> None:
    message = _refuse({key: value})
    assert message.startswith(f"{key} in the storage Secret ")
    assert WRITE[key] in message
    assert "secret'" not in message, "a value is no part of the message"


def test_settings() -> None:
    assert parse_settings({"AWS_REGION": "a b"}) == OciSettings()
    text = json.dumps({"auths": {"r.example": {"auth": LOGIN}}, "credsStore": "desktop"})
    assert parse_settings({".dockerconfigjson": text, "OCI_PLAIN_HTTP": "true"}) == OciSettings(
        {"r.example": DockerLogin(auth=LOGIN)}, plain_http=True
    )


@pytest.mark.parametrize(
    ("addresses", "uri", "expected"),
    [
        (["r.example"], "oci://r.example/a/b:v1", "r.example"),
        (["https://r.example/"], "oci://r.example/a/b:v1", "https://r.example/"),
        (["https://r.example/v2/"], "oci://r.example/a/b:v1", "https://r.example/v2/"),
        (["https://index.docker.io/v1/"], "oci://docker.io/a/b:v1", "https://index.docker.io/v1/"),
        (["docker.io"], "oci://docker.io/a:v1", "docker.io"),
        (["R.example:5000"], "oci://r.example:5000/a:v1", "R.example:5000"),
        (["r.example", "r.example/a", "r.example/b"], "oci://r.example/a/b:v1", "r.example/a"),
        (["r.example/a"], "oci://r.example/ab:v1", ""),
        (["r.example"], "oci://r.example:5000/a:v1", ""),
        (["r.example:5000"], "oci://r.example/a:v1", ""),
        (["example"], "oci://r.example/a:v1", ""),
        (["r.example.com"], "oci://r.example/a:v1", ""),
        ([], "oci://r.example/a:v1", ""),
    ],
)
def test_a_login_is_that_of_the_registry(addresses: list[str], uri: str, expected: str) -> None:
    logins = {address: DockerLogin(username=address, password="p") for address in addresses}
    found = find_login(logins, parse_uri(uri))
    assert (found.user if found else "") == expected


def test_a_login_is_sent_as_docker_sends_it() -> None:
    artifact = Artifact("r.example", "a", "v1")
    login = find_login({"r.example": DockerLogin(auth=LOGIN)}, artifact)
    assert login == Login("me", "sec:ret")
    assert login.header == {"Authorization": f"Basic {LOGIN}"}


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ({}, "has no user and password of 'r.example'"),
        ({"username": "me"}, "has no user and password"),
        ({"auth": base64.b64encode(b"secret").decode()}, "has no user and password"),
        ({"auth": base64.b64encode(b"secret:").decode()}, "has no user and password"),
        ({"auth": "me:secret"}, "that is not user:password in base64"),
        ({"auth": base64.b64encode(b"\xff:secret").decode()}, "that is not user:password in base64"),
        ({"auth": "secré"}, "that is not user:password in base64"),
    ],
)
def test_a_login_without_a_password(entry: dict[str, str], part: str) -> None:
    settings = parse_settings({".dockerconfigjson": json.dumps({"auths": {"r.example": entry, "other": entry}})})
    with pytest.raises(Failure) as raised:
        find_login(settings.logins, Artifact("r.example", "a", "v1"))
    assert raised.value.reason == Reason.INVALID_SECRET
    assert part in raised.value.message
    assert "secret'" not in raised.value.message
    assert find_login(settings.logins, Artifact("another.example", "a", "v1")) is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], []),
        (["Basic"], [("basic", {})]),
        (['Basic realm="a, b=c"'], [("basic", {"realm": "a, b=c"})]),
        (["bearer REALM=https://a/token , service = x"], [("bearer", {"realm": "https://a/token", "service": "x"})]),
        (['Negotiate, Bearer realm="r"'], [("negotiate", {}), ("bearer", {"realm": "r"})]),
        (['Basic realm="b"', 'Bearer realm="r"'], [("basic", {"realm": "b"}), ("bearer", {"realm": "r"})]),
        (['realm="none"'], []),
        (['Bearer realm="open'], [("bearer", {}), ("realm", {}), ("open", {})]),
    ],
)
def test_challenges(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(headers) == tuple(Challenge(scheme, parameters) for scheme, parameters in expected)


def _layer(name: str = "model.onnx", **changes: Any) -> dict[str, Any]:
    layer = {"mediaType": "application/octet-stream", "digest": DIGEST, "size": 1}
    return {**layer, "annotations": {TITLE: name} if name else {}, **changes}


def _manifest(*layers: dict[str, Any]) -> Manifest:
    return Manifest.model_validate({"schemaVersion": 2, "layers": layers})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", ["1/model.onnx", "10/model.onnx", "README.md"]),
        ("/", ["1/model.onnx", "10/model.onnx", "README.md"]),
        ("/1", ["model.onnx"]),
        ("/1/", ["model.onnx"]),
        ("/README.md", ["README.md"]),
    ],
)
def test_the_files_below_a_path(path: str, expected: list[str]) -> None:
    manifest = _manifest(*map(_layer, ("1/model.onnx", "10/model.onnx", "README.md")))
    uri = f"oci://r.example/a:v1{path}"
    items = list_layers(manifest, parse_uri(uri), "version", uri).items
    assert [str(item.path) for item in items] == expected
    assert {(item.size, item.tag, item.key, item.digest, item.version) for item in items} == {
        (1, DIGEST, DIGEST, DIGEST, "version")
    }


@pytest.mark.parametrize("path", ["/2", "/README.md/", "/1/model", "/model.onnx"])
def test_a_path_that_is_none(path: str) -> None:
    manifest = _manifest(*map(_layer, ("1/model.onnx", "README.md")))
    uri = f"oci://r.example/a:v1{path}"
    with pytest.raises(Failure, match=r"has no file or folder .* it has '1/model.onnx', 'README.md'") as raised:
        list_layers(manifest, parse_uri(uri), "", uri)
    assert raised.value.reason == Reason.NOT_FOUND


MODEL = "application/vnd.cncf.model."
KIT = "application/vnd.kitops.modelkit."


@pytest.mark.parametrize(
    ("media_type", "annotations", "name"),
    [
        ("application/vnd.oci.image.layer.v1.tar", {TITLE: "a"}, "a"),  # what oras push writes for any file
        ("application/vnd.cncf.model.weight.v1.raw", {"org.cncf.model.filepath": "b"}, "b"),
        ("application/vnd.cncf.model.weight.config.v1.raw", {"org.cncf.model.filepath": "c/d"}, "c/d"),
        ("application/vnd.kitops.modelkit.model.v1.raw", {"org.cncf.model.filepath": "e"}, "e"),
    ],
)
def test_a_layer_with_a_name_is_a_file(media_type: str, annotations: dict[str, str], name: str) -> None:
    manifest = _manifest(_layer(mediaType=media_type, annotations=annotations))
    [item] = list_layers(manifest, parse_uri("oci://r.example/a:v1"), "", "").items
    assert str(item.path) == name


IMAGE = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
PACKED = {TITLE: "folder", "io.deis.oras.content.unpack": "true"}


@pytest.mark.parametrize(
    ("media_type", "annotations"),
    [
        (IMAGE, PACKED),
        (f"{MODEL}weight.v1.tar", {"org.cncf.model.filepath": "a"}),
        (f"{MODEL}weight.config.v1.tar+zstd", {TITLE: "a"}),
        (f"{KIT}model.v1.tar+gzip", {}),
    ],
)
def test_a_layer_that_is_an_archive(media_type: str, annotations: dict[str, str]) -> None:
    manifest = _manifest(_layer("a/b"), _layer("b"), _layer(mediaType=media_type, annotations=annotations))
    listing = list_layers(manifest, parse_uri("oci://r.example/a:v1/a/"), "version", "")
    assert [str(item.path) for item in listing.items] == ["b"]
    item = Item(PurePosixPath("layer-3"), 1, DIGEST, DIGEST, "version", DIGEST)
    assert listing.archives == Archives((item,), "a", is_folder=True)


@pytest.mark.parametrize("media_type", [IMAGE, DOCKER])
@pytest.mark.parametrize(("path", "folder", "is_folder"), [("", "models", True), ("/opt/m", "opt/m", False)])
def test_the_layers_of_an_image(media_type: str, path: str, folder: str, is_folder: bool) -> None:
    manifest = _manifest(*[_layer(mediaType=media_type, annotations=None)] * 2)
    listing = list_layers(manifest, parse_uri(f"oci://r.example/a:v1{path}"), "version", "")
    assert listing.items == ()
    assert listing.archives
    assert [str(item.path) for item in listing.archives.items] == ["layer-1", "layer-2"]
    assert (listing.archives.path, listing.archives.is_folder) == (folder, is_folder)
    assert listing.archives.are_layers


def test_the_identity_of_archives_is_of_their_order_and_path() -> None:
    items = tuple(Item(PurePosixPath(f"layer-{tag}"), 1, tag, tag) for tag in "ab")
    listings = [
        Listing(items),
        Listing((), Archives(items)),
        Listing((), Archives(items[::-1])),
        Listing((), Archives(items, "a")),
        Listing((), Archives(items, "a", is_folder=True)),
        Listing((), Archives(items, "a", is_folder=True, are_layers=True)),
    ]
    assert len({listing.identity for listing in listings}) == len(listings)


@pytest.mark.parametrize(
    ("media_type", "annotations", "part"),
    [
        (IMAGE, {}, "has layers of an image beside other layers"),
        (f"{MODEL}weight.v1.raw", {}, "a layer without a name"),
        ("application/octet-stream\n", None, "a layer without a name (application/octet-stream)"),
    ],
)
def test_a_layer_that_is_no_file(media_type: str, annotations: dict[str, str] | None, part: str) -> None:
    manifest = _manifest(_layer(), _layer(mediaType=media_type, annotations=annotations))
    with pytest.raises(Failure) as raised:
        list_layers(manifest, parse_uri("oci://r.example/a:v1"), "", "oci://r.example/a:v1")
    assert raised.value.reason == Reason.UNSUPPORTED
    assert part in raised.value.message


def test_two_files_of_one_name() -> None:
    with pytest.raises(Failure, match=r"has 2 files of the name 'a'\. Push each file once") as raised:
        list_layers(_manifest(_layer("a"), _layer("b"), _layer("a")), parse_uri("oci://r.example/a:v1"), "", "u")
    assert raised.value.reason == Reason.UNSAFE_PATH


def _entry(number: int, platform: str = "", **changes: Any) -> dict[str, Any]:
    system, _, architecture = platform.partition("/")
    fields = {"platform": {"os": system, "architecture": architecture}} if platform else {}
    return {"mediaType": MANIFEST, "digest": f"sha256:{number:064}", "size": 1, **fields, **changes}


ATTESTATION = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}


@pytest.mark.parametrize(
    ("manifests", "expected"),
    [
        ([_entry(1)], 1),
        ([_entry(1, "linux/arm64")], 1),
        ([_entry(1, "linux/arm64"), _entry(2, "linux/amd64"), _entry(3, "linux/amd64")], 2),
        ([_entry(1, "linux/amd64"), _entry(2, "unknown/unknown", **ATTESTATION)], 1),
        ([_entry(1, "linux/s390x"), _entry(2, "unknown/unknown", **ATTESTATION)], 1),
        ([_entry(1, mediaType=INDEX), _entry(2)], 2),
    ],
)
def test_the_manifest_of_a_platform(manifests: list[dict[str, Any]], expected: int) -> None:
    index = Index.model_validate({"schemaVersion": 2, "manifests": manifests})
    assert select_manifest(index, "amd64", "").digest == f"sha256:{expected:064}"


@pytest.mark.parametrize(
    ("manifests", "part"),
    [
        ([], "their platforms are missing"),
        ([_entry(1), _entry(2)], "their platforms are none and none"),
        ([_entry(1, "linux/arm64"), _entry(2, "windows/amd64")], "are linux/arm64 and windows/amd64"),
    ],
)
def test_no_manifest_of_a_platform(manifests: list[dict[str, Any]], part: str) -> None:
    index = Index.model_validate({"schemaVersion": 2, "manifests": manifests})
    with pytest.raises(Failure, match=r"none is for linux/amd64.*Write the digest of one manifest") as raised:
        select_manifest(index, "amd64", "u")
    assert raised.value.reason == Reason.UNSUPPORTED
    assert part in raised.value.message


def _document(**fields: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [], **fields}).encode()


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "Invalid JSON"),
        (b"<html><title>Login</title></html>", "a page: Login"),
        (b"[" * 100_000, "Invalid JSON"),
        (b'{"a":' * 100_000, "Invalid JSON"),
        (b"7", "should be an object"),
        (_document(schemaVersion=1), "schemaVersion: Input should be 2"),
        (_document(mediaType=INDEX), f"mediaType: '{INDEX}' in an answer of {MANIFEST}"),
        (_document(mediaType="a" * 300), "mediaType: String should have at most 255"),
        (_document(manifests=[]), "manifests: Input should be null"),
        (_document(layers=None), "layers"),
        (_document(layers=[_layer()] * 10_001), "layers: List should have at most 10000 items"),
        (_document(layers=[0] * 1_000_000), "layers.0"),
        (_document(layers=[_layer(size=-1)]), "layers.0.size: Input should be greater than or equal to 0"),
        (_document(layers=[_layer(size=2**63)]), "layers.0.size"),
        (_document(layers=[_layer(size=10**4000)]), "layers.0.size"),
        (_document(layers=[_layer(size="1")]), "layers.0.size"),
        (_document(layers=[_layer(digest="sha256:../../x")]), "layers.0.digest: String should match"),
        (_document(layers=[_layer(digest=DIGEST.upper())]), "layers.0.digest"),
        (_document(layers=[_layer(digest=f"{DIGEST}\n")]), "layers.0.digest"),
        (_document(layers=[_layer(digest=f"sha512:{'0' * 128}")]), "layers.0.digest"),
        (_document(layers=[_layer(annotations={TITLE: 7})]), f"layers.0.annotations.{TITLE}"),
        (_document(layers=[_layer(annotations={str(n): "" for n in range(1001)})]), "layers.0.annotations"),
        (b'{"schemaVersion": 2, "layers": [], "a": "\\ud800"}', "Invalid JSON"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_a_manifest_that_is_none(body: bytes, part: str) -> None:
    with pytest.raises(Failure) as raised:
        parse_document(body, MANIFEST, "oci://r.example/a:v1")
    assert raised.value.reason == Reason.FETCH_FAILED
    assert part in raised.value.message
    assert len(raised.value.message) < 1000


@pytest.mark.parametrize(
    "media_type", ["text/html", "", "application/vnd.docker.distribution.manifest.v1+prettyjws", "application/json"]
)
def test_an_answer_of_another_media_type(media_type: str) -> None:
    with pytest.raises(Failure, match="such as with oras push") as raised:
        parse_document(_document(), media_type, "oci://r.example/a:v1")
    assert raised.value.reason == Reason.UNSUPPORTED
    assert repr(media_type) in raised.value.message


def test_a_login_is_read_as_the_kubelet_mounts_it(tmp_path: Path) -> None:
    """A key may begin with a dot. The kubelet's own folder and link begin with two."""
    content = tmp_path / "..2026_11_30"
    content.mkdir()
    text = json.dumps({"auths": {"r.example": {"auth": LOGIN}}})
    (content / ".dockerconfigjson").write_text(text)
    (tmp_path / "..data").symlink_to(content.name)
    (tmp_path / ".dockerconfigjson").symlink_to("..data/.dockerconfigjson")
    keys = SCHEMES["oci"].secret_keys
    assert read_secret(tmp_path, keys) == {".dockerconfigjson": text}
    (tmp_path / ".dockerconfigjson").unlink()
    with pytest.raises(Failure, match=r"namespace, with \.dockerconfigjson and what else") as raised:
        read_secret(tmp_path, keys)
    assert raised.value.reason == Reason.SECRET_MISSING
