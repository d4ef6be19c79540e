"""What the manifests of examples/ refer to: files in the store, one volume, and a right answer for each."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import yaml
from pyrage.x25519 import Identity

from conch.cli.model.encryption import encrypt_folder
from tests.cluster import archive, binaries
from tests.cluster.paths import REPOSITORY
from tests.support import filetypes
from tests.support.bundles import derive_key, write_public
from tests.support.clients import Tensors
from tests.support.kube import Kube
from tests.support.plugin import run_plugin
from tests.support.signing import sign_folder
from tests.support.store import Store
from tests.support.wait import TIMEOUT
from tests.support.wheels import build_wheel

FOLDER: Final = REPOSITORY / "examples"
# Manifests that need a cloud's identities: the API server takes them, and no test has an answer of theirs.
CLOUD: Final = FOLDER / "cloud"
FILES: Final = sorted([*FOLDER.glob("*.yaml"), *CLOUD.glob("*.yaml")])
MODELS: Final = Path(__file__).with_name("models")
_SIGNER: Final = derive_key("examples")
# The age identity of encrypted.yaml, which protects nothing.
IDENTITY: Final = "AGE-SECRET-KEY-1YV9VG2Y9M2T9TLM5FDHUMWPE2J4JL0AWZVQV3PXCWJ9EUDAY8HTQEN9S7X"
_SETOSA: Final = [5.1, 3.5, 1.4, 0.2]  # the first row of Fisher's table


@dataclass(frozen=True)
class Example:
    """A manifest of examples/, a request for its model, and what the answer must be."""

    file: Path
    inputs: Tensors
    right: Callable[[Tensors], bool]

    @property
    def name(self) -> str:
        """The service's name."""
        return str(yaml.safe_load(self.file.read_text())["metadata"]["name"])

    @property
    def model(self) -> str:
        """The model's name in Triton, from the manifest."""
        predictor = yaml.safe_load(self.file.read_text())["spec"]["predictor"]
        return str(predictor.get("entry") or predictor["model"].get("name", self.name))

    @property
    def services(self) -> list[str]:
        """The Services that answer: the service's own, and one for each variant."""
        variants = yaml.safe_load(self.file.read_text())["spec"].get("variants", ())
        return [self.name, *(f"{self.name}-{variant['name']}" for variant in variants)]


def all_examples() -> list[Example]:
    """Return one for each file of the folder.

    Raises:
        KeyError: a file has no entry here for what its model answers.
    """
    picture = filetypes.samples()["dot.png"]
    magika = (
        {filetypes.INPUT: filetypes.features(picture)},
        lambda a: filetypes.label(a[filetypes.OUTPUT])[0] == "png",
    )
    numbers = np.array([1.5, 2.0], dtype=np.float32)
    iris = ({"input": np.array([_SETOSA], dtype=np.float32)}, lambda answer: int(answer["label"].ravel()[0]) == 0)
    file = ({"file": np.array([picture], dtype=object)}, lambda answer: answer["type"].tolist() == [b"png"])
    known: dict[str, tuple[Tensors, Callable[[Tensors], bool]]] = {
        "quickstart": magika,
        "rate-limiter": magika,
        "dynamic-batching": magika,
        "autoscaling": magika,
        "keda": magika,
        "cache": magika,
        "peers": magika,
        "mirrors": magika,
        "proxy": magika,
        "image-volume": magika,
        "canary": magika,
        "response-cache": magika,
        "swap": magika,
        "swap-one-pod": magika,
        "tracing": magika,
        "variants": magika,
        "watch": magika,
        "digest": magika,
        "signature": magika,
        "encrypted": magika,
        "encrypted-http": magika,
        "encrypted-oci": magika,
        "pvc": magika,
        "python": ({"x": numbers}, lambda answer: bool((answer["y"] == 2 * numbers).all())),
        "python-packages": ({"x": numbers}, lambda answer: bool((answer["y"] == 3 * numbers).all())),
        "sequences": ({"x": np.array([[1]], dtype=np.float32)}, lambda answer: answer["sum"].tolist() == [[1]]),
        "repository": file,
        "models": file,
        "pipeline": file,
        "sklearn": iris,
        "warmup": iris,
        "triton-repository": (
            {"left": numbers, "right": numbers},
            lambda answer: bool((answer["sum"] == 2 * numbers).all()) and answer["version"].tolist() == [3],
        ),
    }
    return [Example(file, *known[file.stem]) for file in sorted(FOLDER.glob("*.yaml"))]


def upload(store: Store) -> None:
    """Upload every model that an example reads from S3."""
    store.upload("s3://models/magika", {"model.onnx": filetypes.MODEL})
    store.upload("s3://models/magika-copy", {"model.onnx": filetypes.MODEL})
    store.upload("s3://models/magika-v2", {"1/model.onnx": filetypes.MODEL})
    store.upload("s3://models/double", {"model.py": MODELS / "double" / "model.py"})
    name, wheel = build_wheel("scaling", "1.2", {"scaling.py": "FACTOR = 3"})
    packages = {"requirements.txt": b"scaling==1.2\n", f"wheels/{name}": wheel}
    store.upload("s3://models/triple", {"model.py": MODELS / "packages" / "model.py", **packages})
    store.upload("s3://models/magika-signed", sign_model(filetypes.MODEL))
    store.upload("s3://models/magika-encrypted", encrypt_model(filetypes.MODEL))
    code = MODELS / "running_sum" / "model.py"
    store.upload("s3://models/running-sum", {"config.pbtxt": code.with_name("config.pbtxt"), "1/model.py": code})
    code = MODELS / "add_sub" / "model.py"
    versions: dict[str, bytes | Path] = {f"{number}/model.py": code for number in (1, 2, 3)}
    store.upload("s3://models/add-sub", {"config.pbtxt": code.with_name("config.pbtxt"), **versions})
    store.upload("s3://models/file-type", build_file_type())


def push(registry: str, files: str) -> None:
    """Push the encrypted model to a registry, and to a server of files, which gets the plain one too.

    Args:
        registry: Its address: host:port.
        files: That of the server.
    """
    with TemporaryDirectory() as name:
        encrypted, plain = Path(name) / "encrypted", Path(name) / "plain"
        encrypted.mkdir()
        for path, content in encrypt_model(filetypes.MODEL).items():
            (encrypted / path).write_bytes(content)
        plain.mkdir()
        shutil.copy(filetypes.MODEL, plain)
        settings = {"OCI_PLAIN_HTTP": "true"}
        run_plugin("model", "push", encrypted, f"oci://{registry}/team/magika-encrypted:v1", environment=settings)
        for folder, file in ((encrypted, "magika-encrypted.tar.zst"), (plain, "magika.tar.zst")):
            run_plugin("model", "pack", folder, "--to", Path(name) / file)
            run_plugin("model", "push", Path(name) / file, f"http://{files}/models/{file}")


def push_image(registry: str) -> None:
    """Push an image with the model, as KServe's modelcars have it.

    Args:
        registry: Its address: host:port.
    """
    layer = archive.build_layer({"models/magika/model.onnx": filetypes.MODEL.read_bytes()})
    kind = "application/vnd.oci.image"
    with TemporaryDirectory() as folder:
        for name, content in {"layer.tar": layer, "config.json": archive.build_config(layer)}.items():
            (Path(folder) / name).write_bytes(content)
        options = ["--plain-http", f"--config=config.json:{kind}.config.v1+json"]
        image = f"{registry}/team/magika-image:v1"
        command: list[str | Path] = [
            binaries.program("oras"),
            "push",
            *options,
            image,
            f"layer.tar:{kind}.layer.v1.tar",
        ]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


def sign_model(file: Path) -> dict[str, bytes]:
    """Return the files of a signed folder with one model."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "model"
        folder.mkdir()
        shutil.copy(file, folder)
        sign_folder(folder, _SIGNER)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def encrypt_model(file: Path) -> dict[str, bytes]:
    """Return the files of an encrypted and signed folder with one model."""
    with TemporaryDirectory() as name:
        plain, folder = Path(name) / "plain", Path(name) / "model"
        plain.mkdir()
        shutil.copy(file, plain)
        encrypt_folder(plain, folder, [Identity.from_str(IDENTITY).to_public()])
        sign_folder(folder, _SIGNER)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def build_file_type() -> dict[str, bytes | Path]:
    """Return the files of a repository: an ensemble of magika, and the steps before and after it."""
    folder = MODELS / "file_type"
    files: dict[str, bytes | Path] = {"file-type/config.pbtxt": folder / "config.pbtxt"}
    for step in ("features", "labels"):
        files[f"{step}/config.pbtxt"] = folder / step / "config.pbtxt"
        files[f"{step}/1/model.py"] = folder / step / "model.py"
    labels = filetypes.MODEL.with_name("config.min.json")
    return {**files, "magika/1/model.onnx": filetypes.MODEL, "labels/1/config.min.json": labels}


def build_wrong_labels(files: Mapping[str, bytes | Path]) -> dict[str, bytes | Path]:
    """Return the files of the last step of a file-type repository, with an error: a neighbor of the right type.

    Args:
        files: The files of the repository.
    """
    step = {name.removeprefix("labels/"): file for name, file in files.items() if name.startswith("labels/")}
    program = (MODELS / "file_type" / "labels" / "model.py").read_text()
    wrong = program.replace("self._names[best]", "self._names[best - 1]")
    assert wrong != program
    return {**step, "1/model.py": wrong.encode()}


def prepare(kube: Kube, namespace: str, store: Store) -> None:
    """Write the keys and servers that examples name, the model of sklearn.yaml, and that of pvc.yaml, on its claim.

    The models are made in a pod of the serving image: a joblib file is bound to the scikit-learn that wrote it.
    """
    free_volumes(kube, namespace)
    kube.apply(build_trusted_keys(), namespace)
    kube.apply(build_identity(), namespace)
    kube.apply(build_servers(store.namespace), namespace)
    kube.apply(MODELS / "workbench.yaml", namespace)
    here = f"--namespace={namespace}"
    kube.run("wait", "pod/workbench", "--for=condition=Ready", TIMEOUT, here)
    inside = ("exec", "--stdin", "workbench", here, "--")
    trained = kube.feed(MODELS / "train_iris.py", *inside, "python3", "-")
    store.upload("s3://models/iris", {"model.joblib": trained})
    kube.feed(filetypes.MODEL, *inside, "sh", "-c", "mkdir -p /models/magika && cat > /models/magika/model.onnx")
    kube.run("delete", "pod", "workbench", "--wait=false", here)


def build_trusted_keys() -> dict[str, Any]:
    """Return the ConfigMap that signature.yaml names, with the public key of its model."""
    data = {"key.pub": write_public(_SIGNER)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "team"}, "data": data}


def build_servers(namespace: str) -> list[dict[str, Any]]:
    """Return the Services and Secrets that encrypted-http.yaml, encrypted-oci.yaml and proxy.yaml name.

    Args:
        namespace: That of the servers.
    """
    services = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"type": "ExternalName", "externalName": f"{target}.{namespace}.svc.cluster.local"},
        }
        for name, target in {"registry": "registry", "files": "store"}.items()
    ]
    address = "http://user:password@proxy.example:3128"
    proxies = {"HTTPS_PROXY": address, "HTTP_PROXY": address, "NO_PROXY": "files,.svc,10.0.0.0/8"}
    secrets = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
        for name, data in {"registry": {"OCI_PLAIN_HTTP": "true"}, "proxied": proxies}.items()
    ]
    return [*services, *secrets]


def build_identity() -> dict[str, Any]:
    """Return the Secret that encrypted.yaml names, with the identity of its model."""
    data = {"key.txt": IDENTITY}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "identity"}, "stringData": data}


def free_volumes(kube: Kube, namespace: str) -> None:
    """Give back the volumes of an earlier run: a local volume is kept, and waits for a person after its claim."""
    found = kube.read("/api/v1/persistentvolumes") or {"items": []}
    for volume in found["items"]:
        claim = volume["spec"].get("claimRef") or {}
        if volume["status"].get("phase") == "Released" and claim.get("namespace") == namespace:
            kube.run("patch", "pv", volume["metadata"]["name"], "--type=merge", '--patch={"spec":{"claimRef":null}}')
