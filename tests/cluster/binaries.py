"""Kubernetes and its companions, compiled from Go modules and kept outside the checkout.

There may be no download site to take binaries from, but there is a module proxy: every program is built
from a small module below ``go/`` that pins it. Results are cached under a hash of all that shapes them.
CoreDNS is pinned in the module of Kubernetes, with which it then shares the compiler's cache: it costs its own
packages only. (A dependency that is replaced by the same version elsewhere is not shared: with -trimpath the cache's
key holds the version that is required, not the one that replaces it.)
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import packages, toolchain
from tests.cluster.errors import ClusterError
from tests.cluster.paths import HERE, cache_dir
from tests.cluster.progress import step
from tests.cluster.shell import log_run, run

FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")
_NO_DEBUG_INFORMATION = ("-gcflags=all=-dwarf=false",)
"""The linker drops it (-s -w); without it the compiler takes a seventh less, for which a first ``make demo`` waits."""
_KUBERNETES_VERSION = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
PAUSE_VERSION = "3.10.1"


@dataclass(frozen=True, kw_only=True)
class Module:
    """What is built or taken from one upstream module.

    Attributes:
        name: also the name of its results in the cache.
        path: the upstream module, whose version is pinned.
        programs: name and Go package of each.
        version_variables: the variables that hold the version, set by the linker.
        number_variables: what comes before `Major` and `Minor` in those that hold the two numbers of the version.
        files: patterns of the module's files that are kept: its CRDs.
        source: the folder below ``go/`` that pins it; by default its name.
    """

    name: str
    path: str
    programs: dict[str, str] = field(default_factory=dict)
    version_variables: tuple[str, ...] = ()
    number_variables: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    source: str = ""


MODULES = {
    module.name: module
    for module in (
        Module(
            name="kubernetes",
            path="k8s.io/kubernetes",
            programs={
                "etcd": "go.etcd.io/etcd/server/v3",
                "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
                "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
                "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
                "kubelet": "k8s.io/kubernetes/cmd/kubelet",
                "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
            },
            version_variables=tuple(f"{package}.gitVersion" for package in _KUBERNETES_VERSION),
            number_variables=tuple(f"{package}.git" for package in _KUBERNETES_VERSION),
        ),
        # A main package of ours, with the plugins that the Corefile names: CoreDNS' own links every cloud's SDK.
        Module(
            name="coredns",
            path="github.com/coredns/coredns",
            programs={"coredns": "./coredns"},
            source="kubernetes",
        ),
        # Debian 12's is containerd 1.6, which has no image volumes.
        Module(
            name="containerd",
            path="github.com/containerd/containerd/v2",
            programs={
                name: f"github.com/containerd/containerd/v2/cmd/{name}"
                for name in ("containerd", "containerd-shim-runc-v2", "ctr")
            },
            version_variables=("github.com/containerd/containerd/v2/version.Version",),
        ),
        Module(
            name="metrics-server",
            path="sigs.k8s.io/metrics-server",
            programs={"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"},
            version_variables=("sigs.k8s.io/metrics-server/pkg/version.gitVersion",),
        ),
        Module(
            name="kwok",
            path="sigs.k8s.io/kwok",
            programs={"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
            version_variables=("sigs.k8s.io/kwok/pkg/consts.Version",),
            files=(
                "kustomize/stage/node/fast/node-*.yaml",
                "kustomize/stage/node/heartbeat-with-lease/node-*.yaml",
                "kustomize/stage/pod/fast/pod-*.yaml",
            ),
        ),
        Module(name="gateway-api", path="sigs.k8s.io/gateway-api", files=("config/crd/standard/*.yaml",)),
        Module(
            name="envoy-gateway",
            path="github.com/envoyproxy/gateway",
            programs={"envoy-gateway": "github.com/envoyproxy/gateway/cmd/envoy-gateway"},
            version_variables=("github.com/envoyproxy/gateway/internal/cmd/version.envoyGatewayVersion",),
            files=("charts/gateway-helm/charts/crds/crds/generated/*.yaml",),
        ),
        # It enforces NetworkPolicies, for the test of those that the chart has.
        Module(
            name="kube-router",
            path="github.com/cloudnativelabs/kube-router/v2",
            programs={"kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"},
            version_variables=("github.com/cloudnativelabs/kube-router/v2/pkg/version.Version",),
        ),
        Module(
            name="keda",
            path="github.com/kedacore/keda/v2",
            programs={
                "keda-operator": "github.com/kedacore/keda/v2/cmd/operator",
                "keda-adapter": "github.com/kedacore/keda/v2/cmd/adapter",
            },
            version_variables=("github.com/kedacore/keda/v2/version.Version",),
            files=("config/crd/bases/*.yaml",),
        ),
        # It pushes the images of a release, and its `registry serve` is the registry of the test.
        Module(
            name="crane",
            path="github.com/google/go-containerregistry",
            programs={"crane": "github.com/google/go-containerregistry/cmd/crane"},
            version_variables=("github.com/google/go-containerregistry/cmd/crane/cmd.Version",),
        ),
        # An emulator of Google Cloud Storage, for the tests of gs:// (tests/serving).
        Module(
            name="fake-gcs-server",
            path="github.com/fsouza/fake-gcs-server",
            programs={"fake-gcs-server": "github.com/fsouza/fake-gcs-server"},
        ),
        # A registry and a client that pushes to it, for the tests of oci:// (tests/serving).
        Module(
            name="registry",
            path="github.com/distribution/distribution/v3",
            programs={"registry": "./registry"},
        ),
        Module(
            name="oras",
            path="oras.land/oras",
            programs={"oras": "oras.land/oras/cmd/oras"},
            source="registry",
        ),
    )
}
PROGRAMS = {program: module for module in MODULES.values() for program in module.programs}


def source(module: Module) -> Path:
    """Return the folder of a module's go.mod."""
    return HERE / "go" / (module.source or module.name)


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
    """Return the ``-ldflags`` of a module: small binaries that know their version, Kubernetes for one."""
    settings = [f"-X {variable}={upstream}" for variable in module.version_variables]
    major, minor, _ = upstream.removeprefix("v").split(".", 2)
    for variable in module.number_variables:
        settings += [f"-X {variable}Major={major}", f"-X {variable}Minor={minor}"]
    return " ".join(["-s -w", *settings])


def _linker_flags(module: Module) -> str:
    return linker_flags(module, version(module))


def build_flags(module: Module) -> tuple[str, ...]:
    """Return the flags of a module's compilation."""
    return (*FLAGS, *_NO_DEBUG_INFORMATION) if source(module).name == "kubernetes" else FLAGS


def content_key(parts: Iterable[bytes]) -> str:
    """Return a short hash of byte strings; where one ends and the next begins counts too."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:16]


def folder(module: Module, toolchain_version: str) -> Path:
    """Return the cache folder of a module's programs; it exists only when they are complete."""
    shape = [
        module.programs,
        build_flags(module),
        _linker_flags(module),
        PAUSE_VERSION,
        toolchain_version,
    ]
    code = [path.read_bytes() for path in sorted(source(module).rglob("*.go"))]
    return _cached(module, "", [json.dumps(shape).encode(), *code])


def manifest_folder(module: Module) -> Path:
    """Return the cache folder of a module's files."""
    return _cached(module, "-files", [json.dumps(module.files).encode()])


def _cached(module: Module, suffix: str, parts: list[bytes]) -> Path:
    pins = [(source(module) / name).read_bytes() for name in ("go.mod", "go.sum")]
    return cache_dir() / "bin" / f"{module.name}{suffix}-{content_key([*pins, *parts])}"


def program(name: str) -> Path:
    """Return the path of a program, building its module first when the cache has none."""
    return ensure(PROGRAMS[name]) / name


def is_built(module: Module) -> bool:
    """Return whether the programs of a module are in the cache."""
    return not module.programs or folder(module, toolchain.version()).exists()


def ensure(module: Module) -> Path:
    """Return the folder of a module's programs, after building them when they are not cached."""
    ensure_all([module])
    return folder(module, toolchain.version())


def ensure_all(modules: Iterable[Module]) -> None:
    """Build the programs of these modules that are not cached."""
    groups: dict[Path, list[Module]] = {}
    for module in modules:
        if not is_built(module):
            groups.setdefault(source(module), []).append(module)
    for group in groups.values():
        with _lock():
            if missing := [module for module in group if not is_built(module)]:
                _build(missing)


def manifests(name: str) -> list[Path]:
    """Return the YAML files kept of a module, its CRDs or kwok's stages; no program is compiled for them."""
    module = MODULES[name]
    target = manifest_folder(module)
    if not target.exists():
        with _lock():
            if not target.exists():
                _copy_files(module, target)
    return sorted(target.glob("*.yaml"))


def pause() -> Path:
    """Return the program of the sandbox image: it holds a pod's namespaces and reaps its orphans."""
    return ensure(MODULES["kubernetes"]) / "pause"


@contextmanager
def _lock() -> Iterator[None]:
    """Let one build run at a time, over all processes: each uses every core."""
    path = cache_dir() / "bin" / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(modules: Sequence[Module]) -> None:
    """Build all programs of modules of one go.mod by one command, so that one links while another compiles."""
    scratch = Path(tempfile.mkdtemp(prefix=".build-", dir=cache_dir() / "bin"))
    try:
        _compile(modules, scratch)
        for module in modules:
            _keep(module, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _compile(modules: Sequence[Module], output: Path) -> None:
    with step(f"compiling {', '.join(f'{module.name} {version(module)}' for module in modules)}") as running:
        first = modules[0]
        go = toolchain.command("-C", source(first))
        # A variable of a package that a program has not is passed over.
        flags = [*build_flags(first), "-ldflags", " ".join(map(_linker_flags, modules))]
        targets = [package for module in modules for package in module.programs.values()]
        stale = ["list", "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}"]
        hint = "the Go module proxy must be reachable, and the cache's disk needs about 6 GB"
        listed = run([*go, *stale, *flags, *targets], env=toolchain.environment(), hint=hint)
        running.expect(len(listed.stdout.split()), "packages")
        log_run(
            [*go, "build", "-v", *flags, "-o", f"{output}/", *targets],
            cache_dir() / "logs" / f"build-{'-'.join(module.name for module in modules)}.log",
            env=toolchain.environment(),
            hint=hint,
            on_line=running.advance,
        )


def _keep(module: Module, output: Path) -> None:
    """Move a module's programs into the cache, all or none."""
    own = output / f"{module.name}-programs"
    own.mkdir()
    for name, package in module.programs.items():
        (output / executable(package)).rename(own / name)
    if module.name == "kubernetes":
        _compile_pause(own / "pause")
    own.rename(folder(module, toolchain.version()))


def executable(package: str) -> str:
    """Return the name that Go gives a program: the last element of its package's path that is no version.

    >>> executable("go.etcd.io/etcd/server/v3")
    'server'
    """
    elements = [element for element in package.split("/") if not re.fullmatch(r"v[0-9]+", element)]
    return elements[-1]


def _copy_files(module: Module, target: Path) -> None:
    """Copy a module's files into the cache, all or none."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{module.name}-", dir=target.parent))
    try:
        for pattern in module.files:
            found = list(_module_dir(module).glob(pattern))
            if not found:
                message = f"{module.path} {version(module)} has no file {pattern}"
                raise ClusterError(message, hint="the pattern is in tests/cluster/binaries.py")
            for path in found:
                shutil.copyfile(path, scratch / path.name)
        scratch.chmod(0o755)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _module_dir(module: Module) -> Path:
    argv = [*toolchain.command("-C", source(module)), "mod", "download", "-json", module.path]
    return Path(json.loads(run(argv, env=toolchain.environment()).stdout)["Dir"])


def _compile_pause(output: Path) -> None:
    packages.ensure(packages.COMPILER)
    code = _module_dir(MODULES["kubernetes"]) / "build" / "pause" / "linux" / "pause.c"
    run(["gcc", "-Os", "-static", f"-DVERSION=v{PAUSE_VERSION}", "-o", output, code])
