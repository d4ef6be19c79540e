"""Kubernetes and its companions, compiled from Go modules and kept outside the checkout.

There may be no download site to take binaries from, but there is a module proxy: every program is built
from a small module below ``go/`` that pins it. Results are cached under a hash of all that shapes them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import packages, toolchain
from tests.cluster.errors import ClusterError
from tests.cluster.paths import HERE, cache_dir
from tests.cluster.progress import step
from tests.cluster.shell import log_run, run

FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")
_KUBERNETES_VERSION = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
PAUSE_VERSION = "3.10.1"


@dataclass(frozen=True)
class Module:
    """A folder below ``go/``: the module it pins, its programs, and the variables that hold its version.

    ``files`` are patterns of files in the module that are kept beside the programs.
    """

    name: str
    path: str
    programs: dict[str, str]
    version_variables: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


MODULES = {
    module.name: module
    for module in (
        Module(
            "kubernetes",
            "k8s.io/kubernetes",
            {
                "etcd": "go.etcd.io/etcd/server/v3",
                "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
                "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
                "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
                "kubectl": "k8s.io/kubernetes/cmd/kubectl",
                "kubelet": "k8s.io/kubernetes/cmd/kubelet",
                "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
            },
            tuple(f"{package}.gitVersion" for package in _KUBERNETES_VERSION),
        ),
        Module("coredns", "github.com/coredns/coredns", {"coredns": "github.com/coredns/coredns"}),
        Module(
            "metrics-server",
            "sigs.k8s.io/metrics-server",
            {"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"},
            ("sigs.k8s.io/metrics-server/pkg/version.gitVersion",),
        ),
        Module(
            "kwok",
            "sigs.k8s.io/kwok",
            {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
            ("sigs.k8s.io/kwok/pkg/consts.Version",),
            (
                "kustomize/stage/node/fast/node-*.yaml",
                "kustomize/stage/node/heartbeat-with-lease/node-*.yaml",
                "kustomize/stage/pod/fast/pod-*.yaml",
            ),
        ),
        Module(
            "helm",
            "helm.sh/helm/v4",
            {"helm": "helm.sh/helm/v4/cmd/helm"},
            ("helm.sh/helm/v4/internal/version.version",),
        ),
        Module("gateway-api", "sigs.k8s.io/gateway-api", {}, files=("config/crd/standard/*.yaml",)),
        Module(
            "envoy-gateway",
            "github.com/envoyproxy/gateway",
            {"envoy-gateway": "github.com/envoyproxy/gateway/cmd/envoy-gateway"},
            ("github.com/envoyproxy/gateway/internal/cmd/version.envoyGatewayVersion",),
            ("charts/gateway-helm/charts/crds/crds/generated/*.yaml",),
        ),
        Module(
            "keda",
            "github.com/kedacore/keda/v2",
            {
                "keda-operator": "github.com/kedacore/keda/v2/cmd/operator",
                "keda-adapter": "github.com/kedacore/keda/v2/cmd/adapter",
            },
            ("github.com/kedacore/keda/v2/version.Version",),
            ("config/crd/bases/*.yaml",),
        ),
    )
}
PROGRAMS = {program: module for module in MODULES.values() for program in module.programs}


def source(module: Module) -> Path:
    """Return the folder of a module's go.mod."""
    return HERE / "go" / module.name


def pinned_version(go_mod: str, path: str) -> str:
    """Return the version at which a go.mod requires the module ``path``.

    >>> pinned_version("require k8s.io/kubernetes v1.35.4", "k8s.io/kubernetes")
    'v1.35.4'
    """
    match = re.search(rf"^\s*(?:require\s+)?{re.escape(path)}\s+(v\S+)", go_mod, re.MULTILINE)
    if match is None:
        message = f"go.mod does not require {path}"
        raise ClusterError(message, hint="add it with go mod edit -require")
    return match[1]


def version(module: Module) -> str:
    """Return the version of the upstream module that is pinned."""
    return pinned_version((source(module) / "go.mod").read_text(), module.path)


def linker_flags(module: Module, upstream: str) -> str:
    """Return the ``-ldflags`` of a module: small binaries that know their version.

    Without it Kubernetes calls itself v0.0.0, and Helm and other clients refuse to work with it.
    """
    settings = [f"-X {variable}={upstream}" for variable in module.version_variables]
    if module.name == "kubernetes":
        major, minor, _ = upstream.removeprefix("v").split(".", 2)
        for package in _KUBERNETES_VERSION:
            settings += [f"-X {package}.gitMajor={major}", f"-X {package}.gitMinor={minor}"]
    return " ".join(["-s -w", *settings])


def content_key(parts: Iterable[bytes]) -> str:
    """Return a short hash of byte strings; where one ends and the next begins counts too."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:16]


def folder(module: Module) -> Path:
    """Return the cache folder of a module's results; it exists only when they are complete."""
    here = source(module)
    shape = [module.programs, module.files, FLAGS, linker_flags(module, version(module)), PAUSE_VERSION]
    key = content_key(
        [
            (here / "go.mod").read_bytes(),
            (here / "go.sum").read_bytes(),
            json.dumps(shape).encode(),
            toolchain.version().encode(),
        ]
    )
    return cache_dir() / "bin" / f"{module.name}-{key}"


def program(name: str) -> Path:
    """Return the path of a program, building its module first when the cache has none."""
    return ensure(PROGRAMS[name]) / name


def manifests(name: str) -> list[Path]:
    """Return the YAML files kept of a module: its CRDs, or kwok's stages."""
    return sorted(ensure(MODULES[name]).glob("*.yaml"))


def pause() -> Path:
    """Return the program of the sandbox image: it holds a pod's namespaces and reaps its orphans."""
    return ensure(MODULES["kubernetes"]) / "pause"


def ensure(module: Module) -> Path:
    """Return the folder of a module's results, after building them when they are not cached."""
    target = folder(module)
    if target.exists():
        return target
    with _lock(module.name):
        if not target.exists():
            _build(module, target)
    return target


@contextmanager
def _lock(name: str) -> Iterator[None]:
    """Let one process at a time build a module: two clusters may be brought up at once."""
    path = cache_dir() / "bin" / f".{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(module: Module, target: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{module.name}-", dir=target.parent))
    try:
        for name, package in module.programs.items():
            with step(f"compiling {name} {version(module)} (cached afterwards)"):
                _compile(module, package, scratch / name)
        if module.name == "kubernetes":
            _compile_pause(scratch / "pause")
        for path in (path for pattern in module.files for path in _module_dir(module).glob(pattern)):
            shutil.copyfile(path, scratch / path.name)
        scratch.chmod(0o755)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _compile(module: Module, package: str, output: Path) -> None:
    flags = ["-ldflags", linker_flags(module, version(module))]
    log_run(
        [*toolchain.command("-C", source(module)), "build", *FLAGS, *flags, "-o", output, package],
        cache_dir() / "logs" / f"build-{output.name}.log",
        env=toolchain.environment(),
        hint="the Go module proxy must be reachable, and the cache's disk needs about 6 GB",
    )


def _module_dir(module: Module) -> Path:
    argv = [*toolchain.command("-C", source(module)), "mod", "download", "-json", module.path]
    return Path(json.loads(run(argv, env=toolchain.environment()).stdout)["Dir"])


def _compile_pause(output: Path) -> None:
    packages.ensure(packages.COMPILER)
    code = _module_dir(MODULES["kubernetes"]) / "build" / "pause" / "linux" / "pause.c"
    run(["gcc", "-Os", "-static", f"-DVERSION=v{PAUSE_VERSION}", "-o", output, code])
