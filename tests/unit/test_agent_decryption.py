"""Encrypted models: what is decrypted, what is refused before a byte of it is used, and where the plaintext is."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pyrage
import pytest
from aiohttp import web
from pyrage import x25519

from conch_agent.age import Decryption as FileDecryption
from conch_agent.age import parse_keys
from conch_agent.decryption import plan_names
from conch_agent.layout import SERVED
from conch_agent.metrics import ModelMetrics, Phase
from conch_agent.prepare import Preparation
from conch_agent.reasons import Failure, Reason
from conch_agent.repository_model import RepositoryModel
from conch_agent.settings import Settings
from conch_agent.sources.base import Item, Listing
from conch_agent.warmup.folder import fetch_requests
from conch_contract import Decryption, Mirror, ModelSource, Signature, Verification, Warmup
from conch_contract.report import Origin
from tests.support import bundles, signing, tars
from tests.support.web import serve_apps

IDENTITY = x25519.Identity.generate()
RECIPIENT = IDENTITY.to_public()
CHUNK, TAG = 64 * 1024, 16  # bytes of age's chunks, and of the code that authenticates each
CONFIG = b'backend: "python"\n'
MODEL = b"class TritonPythonModel: ...\n"
WEIGHTS = os.urandom(3 * CHUNK + 1000)
FILES = {"config.pbtxt": CONFIG, "1/model.py": MODEL, "1/weights.bin": WEIGHTS}


def _encrypt(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        path = folder / f"{name}.age"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pyrage.encrypt(content, [RECIPIENT]))
    return folder


def _mount_keys(settings: Settings, text: str, name: str = "key.txt") -> None:
    folder = settings.decryption / "keys"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _encrypt(FILES, tmp_path / "model")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(root=tmp_path / "pod")
    for each in (settings.repository, settings.downloads, settings.decrypted):
        each.mkdir(parents=True)
    _mount_keys(settings, f"# created: 2026-11-30\n# public key: {RECIPIENT}\n{IDENTITY}\n")
    return settings


def _source(folder: Path, *, decrypt: bool = True, verify: Verification | None = None) -> ModelSource:
    keys = Decryption(secret="keys") if decrypt else None
    return ModelSource(name="m", format="triton", storage_uri=f"file://{folder}", decrypt=keys, verify=verify)


async def _prepare(source: ModelSource, settings: Settings, metrics: ModelMetrics | None = None) -> RepositoryModel:
    return await Preparation(source, settings, metrics).prepare(None)


async def _refusal(source: ModelSource, settings: Settings) -> Failure:
    """Return the failure of a model of which no plaintext is left."""
    with pytest.raises(Failure) as refusal:
        await _prepare(source, settings)
    assert not (settings.repository / "m").exists()
    assert not [path for path in settings.decrypted.rglob("*") if path.is_file()]
    return refusal.value


def _read(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_an_encrypted_model_is_laid_out_as_its_plaintext_is(folder: Path, settings: Settings) -> None:
    metrics = ModelMetrics()
    model = await _prepare(_source(folder), settings, metrics)
    assert metrics.counts[Phase.DECRYPT] == 1
    laid = _read(settings.repository / "m")
    assert (laid["1/model.py"], laid["1/weights.bin"]) == (MODEL, WEIGHTS)
    assert b'backend: "python"' in laid["config.pbtxt"]
    assert not [name for name in laid if name.endswith(".age")]
    assert _read(settings.decrypted / "m" / SERVED) == FILES
    assert not (settings.decrypted / "m" / "files").exists(), "the repository has links of its own"
    assert not (settings.downloads / "m" / "files").exists(), "the pod needs its disk once"
    assert Preparation(_source(folder), settings).find_existing() == model


async def test_the_digest_is_that_of_the_encrypted_files(folder: Path, settings: Settings) -> None:
    model = await _prepare(_source(folder), settings)
    source = _source(folder, verify=Verification(digest=model.digest))
    again = await _prepare(source, settings)
    assert (again.digest, again.verified) == (model.digest, ("Digest",))
    _encrypt({"1/model.py": MODEL}, folder)  # the same plaintext, and another ciphertext
    with pytest.raises(Failure) as refusal:
        await _prepare(source, settings)
    assert refusal.value.reason == Reason.DIGEST_MISMATCH


async def test_the_signature_is_that_of_the_encrypted_files(folder: Path, settings: Settings) -> None:
    """Nothing is decrypted that is not signed: a file of someone who has the public recipient alone is refused."""
    key = bundles.make_key()
    (settings.trust / "team").mkdir(parents=True)
    (settings.trust / "team" / "key.pub").write_text(bundles.write_public(key))
    signing.sign_folder(folder, key)
    source = _source(folder, verify=Verification(signature=Signature(config_map="team")))
    assert (await _prepare(source, settings)).verified == ("Signature",)
    _encrypt({"1/model.py": b"evil"}, folder)
    with pytest.raises(Failure, match=r"other contents than the signed ones: 1/model\.py\.age") as refusal:
        await _prepare(source, settings)
    assert refusal.value.reason == Reason.NOT_SIGNED
    assert (settings.repository / "m/1/model.py").read_bytes() == MODEL


async def test_a_signature_that_is_not_verified_is_no_file_of_the_model(folder: Path, settings: Settings) -> None:
    (folder / "model.sig").write_text("{}")
    await _prepare(_source(folder), settings)
    assert not (settings.repository / "m/model.sig").exists()


async def test_the_cache_has_ciphertext_alone(folder: Path, settings: Settings) -> None:
    """It outlives the pod. Files of a claim are not cached, so the model is in an archive, whose members are."""
    (settings.root / "cache").mkdir()
    archive = folder.parent / "model.tar"
    archive.write_bytes(tars.pack_files(_read(folder)))
    application = web.Application()
    application.router.add_static("/", folder.parent)
    with serve_apps(application) as [address]:
        uri = f"{address}/model.tar"
        source = ModelSource(name="m", format="triton", storage_uri=uri, decrypt=Decryption(secret="keys"))
        model = await _prepare(source, settings)
    assert not model.cache_problem
    cached = [path for path in (settings.root / "cache").rglob("*") if path.is_file()]
    contents = [path.read_bytes() for path in cached]
    assert sum(content.startswith(b"age-encryption.org/v1") for content in contents) >= len(FILES)
    assert not [path for path, content in zip(cached, contents, strict=True) if WEIGHTS[:1000] in content]
    assert not any(MODEL in content or CONFIG in content for content in contents)
    assert (settings.repository / "m/1/weights.bin").read_bytes() == WEIGHTS


async def test_the_requests_of_a_warm_up_are_decrypted(folder: Path, settings: Settings, tmp_path: Path) -> None:
    """A Job fetches them from the storage of the model, and has none of its other files."""
    _encrypt({"warmup/a.json": b"{}"}, folder)
    source = _source(folder).model_copy(update={"warmup": Warmup(path="warmup")})
    requests = await fetch_requests(source, settings, tmp_path / "scratch")
    assert _read(requests) == {"warmup/a.json": b"{}"}


async def test_one_of_several_identities_is_enough(folder: Path, settings: Settings) -> None:
    """So a new identity is added before files are encrypted for it."""
    _mount_keys(settings, f"{x25519.Identity.generate()}\n\n{x25519.Identity.generate()}\n", "a.txt")
    await _prepare(_source(folder), settings)
    assert (settings.repository / "m/1/model.py").read_bytes() == MODEL


def _swap_chunks(content: bytes) -> bytes:
    """Return the file with its second and third chunk in each other's place, of which it has four."""
    size = CHUNK + TAG
    start = len(content) - (1000 + TAG) - 3 * size
    first, second, third = (content[start + n * size : start + (n + 1) * size] for n in range(3))
    return content[:start] + first + third + second + content[start + 3 * size :]


def _flip(content: bytes, index: int) -> bytes:
    changed = bytearray(content)
    changed[index] ^= 1
    return bytes(changed)


HEADER = pyrage.encrypt(b"", [RECIPIENT]).partition(b"\n--- ")[0]
BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated by a byte": (lambda content: content[:-1], f"is authentic in its first {3 * CHUNK} bytes only"),
    "truncated at a chunk": (lambda content: content[: -(1000 + TAG)], "was changed or truncated"),
    "truncated in the header": (lambda content: content[:100], "has no end of its header"),
    "reordered": (_swap_chunks, f"is authentic in its first {CHUNK} bytes only"),
    "a flipped bit": (lambda content: _flip(content, -CHUNK), f"is authentic in its first {2 * CHUNK} bytes only"),
    "a flipped bit in the header": (
        lambda content: _flip(content, content.index(b"\n--- ") + 10),
        "has a header that is not authentic",
    ),
    "bytes at the end": (lambda content: content + b"x", f"is authentic in its first {3 * CHUNK} bytes only"),
    "empty": (lambda _: b"", "is not encrypted with age"),
    "plaintext": (lambda _: b"PK", "is not encrypted with age"),
    "armored": (lambda content: pyrage.encrypt(content, [RECIPIENT], armored=True), "encrypt it without --armor"),
    "a header of 10 MB": (lambda _: HEADER + b"\n-> X25519 AAAA" * 700_000, "has no end of its header"),
    "for a passphrase": (lambda content: pyrage.passphrase.encrypt(content, "x"), "is encrypted for other keys"),
}


@pytest.mark.parametrize("change", BROKEN)
async def test_a_file_that_is_not_as_it_was_encrypted_is_not_used(
    folder: Path, settings: Settings, change: str
) -> None:
    make, named = BROKEN[change]
    file = folder / "1/weights.bin.age"
    file.write_bytes(make(file.read_bytes()))
    failure = await _refusal(_source(folder), settings)
    assert failure.reason == Reason.DECRYPTION_FAILED
    assert failure.message.startswith(f"file://{folder}: 1/weights.bin.age ")
    assert named in failure.message
    assert "Nothing of it is served. Encrypt the folder" in failure.message


async def test_a_wrong_key(folder: Path, settings: Settings) -> None:
    other = x25519.Identity.generate()
    _mount_keys(settings, str(other))
    failure = await _refusal(_source(folder), settings)
    assert failure.reason == Reason.DECRYPTION_FAILED
    assert f"is encrypted for other keys than those of storage.decrypt, whose recipients are {other.to_public()}." in (
        failure.message
    )
    assert str(other) not in failure.message


KEYS = {
    "missing": ({}, Reason.KEY_MISSING, "The Secret 'keys' that storage.decrypt.secretRef names does not exist"),
    "empty": ({"key.txt": "# nothing\n"}, Reason.INVALID_KEY, "key.txt of the Secret 'keys' has no identity"),
    "a recipient": ({"key.txt": str(RECIPIENT)}, Reason.INVALID_KEY, "has in line 1 no AGE-SECRET-KEY-1..."),
    "cut": ({"key.txt": f"#\n{IDENTITY}"[:-4]}, Reason.INVALID_KEY, "has in line 2 an incomplete or mistyped identity"),
}


@pytest.mark.parametrize("case", KEYS)
async def test_a_secret_without_an_identity_is_reported_before_the_fetch(
    folder: Path, settings: Settings, case: str
) -> None:
    files, reason, named = KEYS[case]
    (settings.decryption / "keys" / "key.txt").unlink()
    for name, text in files.items():
        _mount_keys(settings, text, name)
    failure = await _refusal(_source(folder), settings)
    assert failure.reason == reason
    assert named in failure.message
    assert str(IDENTITY)[20:40] not in failure.message
    assert not (settings.downloads / "m").exists()


async def test_files_that_are_not_encrypted_although_decrypt_is_set(folder: Path, settings: Settings) -> None:
    (folder / "1/model.py").write_bytes(b"evil")
    failure = await _refusal(_source(folder), settings)
    assert failure.reason == Reason.NOT_ENCRYPTED
    assert "has files that are not encrypted, and storage.decrypt is set: 1/model.py. Nothing" in failure.message


async def test_files_that_are_encrypted_although_decrypt_is_not_set(folder: Path, settings: Settings) -> None:
    (folder / "model.sig").write_text("{}")
    failure = await _refusal(_source(folder, decrypt=False), settings)
    assert failure.reason == Reason.ENCRYPTED
    assert "1/model.py.age" in failure.message
    assert failure.message.endswith("Set storage.decrypt.secretRef to a Secret with the age identity.")


NAMES = {
    "a file and a folder": ({"a": b"x", "a/b": b"y"}, "holds both a file 'a'"),
    "a parent": ({"1/.": b"x"}, "which would leave its folder"),
}


@pytest.mark.parametrize("case", NAMES)
async def test_names_that_collide_or_lead_out_after_decryption(folder: Path, case: str) -> None:
    files, named = NAMES[case]
    listing = Listing(tuple(Item(PurePosixPath(f"{name}.age"), 1, "", "") for name in files))
    with pytest.raises(Failure) as refusal:
        plan_names(listing, _source(folder))
    assert refusal.value.reason == Reason.UNSAFE_PATH
    assert named in refusal.value.message


async def test_a_file_beside_its_encrypted_form_is_refused(folder: Path, settings: Settings) -> None:
    (folder / "1/weights.bin").write_bytes(b"x")
    failure = await _refusal(_source(folder), settings)
    assert failure.reason == Reason.NOT_ENCRYPTED


async def test_a_file_that_is_encrypted_twice_is_decrypted_once(folder: Path, settings: Settings) -> None:
    inner = pyrage.encrypt(b"x", [RECIPIENT])
    _encrypt({"1/data": b"x", "1/data.age": inner}, folder)
    await _prepare(_source(folder), settings)
    assert (settings.repository / "m/1/data").read_bytes() == b"x"
    assert (settings.repository / "m/1/data.age").read_bytes() == inner


def test_a_decryption_has_a_bounded_memory(tmp_path: Path) -> None:
    source = tmp_path / "large.age"
    with (tmp_path / "large").open("wb") as file:
        file.truncate(256 * 1024 * 1024)
    with (tmp_path / "large").open("rb") as plain, source.open("wb") as target:
        pyrage.encrypt_io(plain, target, [RECIPIENT])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    FileDecryption(source, tmp_path / "again").run(parse_keys(str(IDENTITY)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024, "KiB"
    assert (tmp_path / "again").stat().st_size == 256 * 1024 * 1024


def test_a_decryption_that_is_stopped_ends(tmp_path: Path) -> None:
    decryption = FileDecryption(_encrypt({"a": WEIGHTS}, tmp_path) / "a.age", tmp_path / "a")
    decryption.stop()
    with pytest.raises(OSError, match="the decryption was stopped"):
        decryption.run(parse_keys(str(IDENTITY)))


@pytest.mark.parametrize("damage", ["a chunk", "a plain file"])
async def test_a_mirror_serves_where_the_files_of_the_store_are_damaged(
    folder: Path, settings: Settings, tmp_path: Path, damage: str
) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(folder, mirror)
    if damage == "a chunk":
        encrypted = bytearray((folder / "1/weights.bin.age").read_bytes())
        encrypted[-5] ^= 1
        (folder / "1/weights.bin.age").write_bytes(encrypted)
    else:
        (folder / "plain").write_text("x")
    source = _source(folder).model_copy(update={"mirrors": (Mirror(uri=f"file://{mirror}"),)})
    model = await _prepare(source, settings)
    assert (model.origin, model.uri) == (Origin.MIRROR, f"file://{mirror}")
    assert (settings.repository / "m/1/weights.bin").read_bytes() == WEIGHTS
    assert {"a chunk": "is authentic in its first", "a plain file": "that are not encrypted"}[damage] in model.detour
