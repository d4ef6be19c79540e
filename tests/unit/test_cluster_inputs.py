"""What shapes a build: content hashes, versions, and the machine's own configuration."""

from pathlib import Path

import pytest

from tests.cluster import binaries, cgroups, hostconfig, images, leftovers, toolchain
from tests.cluster.errors import ClusterError, tail
from tests.cluster.paths import HERE

SOURCES = """\
# a comment
Types: deb
URIs: https://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://mirror.example/security
Suites: bookworm-security
Components: main

Types: deb
URIs: https://other.example/node
Suites: nodistro
Components: main

Types: deb-src
URIs: https://mirror.example/debian
Suites: bookworm
Components: main
"""


def test_a_content_key_sees_where_one_part_ends() -> None:
    assert binaries.content_key([b"ab", b"c"]) == binaries.content_key([b"ab", b"c"])
    assert binaries.content_key([b"ab", b"c"]) != binaries.content_key([b"a", b"bc"])


def test_the_cache_folder_follows_toolchain_and_module() -> None:
    versions = ("go version go1.26.8 linux/amd64", "go version go1.26.9 linux/amd64")
    seen = {binaries.folder(module, version) for version in versions for module in binaries.MODULES.values()}
    assert len(seen) == 2 * len(binaries.MODULES)


def test_add_ons_do_not_change_the_dependencies_of_weight_that_kubernetes_is_released_with() -> None:
    go_mod = (HERE / "go" / "kubernetes" / "go.mod").read_text()
    released = {
        "go.etcd.io/etcd/server/v3": "v3.6.5",
        "go.opentelemetry.io/otel": "v1.41.0",
        "google.golang.org/grpc": "v1.72.2",
        "google.golang.org/protobuf": "v1.36.8",
        "golang.org/x/net": "v0.47.0",
        "golang.org/x/crypto": "v0.45.0",
    }
    assert {module: binaries.pinned_version(go_mod, module) for module in released} == released


@pytest.mark.parametrize(
    ("package", "name"),
    [("go.etcd.io/etcd/server/v3", "server"), ("./coredns", "coredns"), ("k8s.io/kubernetes/cmd/kubelet", "kubelet")],
)
def test_a_program_has_the_name_that_go_gives_it(package: str, name: str) -> None:
    assert binaries.executable(package) == name


def test_every_module_pins_its_upstream() -> None:
    assert all(binaries.version(module).startswith("v") for module in binaries.MODULES.values())


def test_kubernetes_knows_its_version() -> None:
    given = binaries.linker_flags(binaries.MODULES["kubernetes"], "v1.35.4")
    assert "-X k8s.io/component-base/version.gitVersion=v1.35.4" in given
    assert "-X k8s.io/client-go/pkg/version.gitMinor=35" in given


def test_only_modules_with_manifests_keep_files() -> None:
    assert {name for name, module in binaries.MODULES.items() if module.files} == {
        "gateway-api",
        "kwok",
        "envoy-gateway",
        "keda",
    }


def test_a_missing_pin_is_an_error() -> None:
    with pytest.raises(ClusterError, match="does not require"):
        binaries.pinned_version("require example.org/a v1.0.0", "example.org/b")


@pytest.mark.parametrize(
    ("text", "expected"), [("go version go1.26.8 linux/amd64", (1, 26, 8)), ("\ngo 1.25\n", (1, 25, 0))]
)
def test_go_versions_are_read(text: str, expected: tuple[int, ...]) -> None:
    assert toolchain.parse(text) == expected


def test_only_the_release_of_the_images_is_taken_from_apt(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(SOURCES)
    found = hostconfig.debian_sources(tmp_path)
    assert [source.suites for source in found] == [("bookworm", "bookworm-updates"), ("bookworm-security",)]
    assert hostconfig.mirror(found) == "https://mirror.example/debian"
    assert hostconfig.parse_deb822(found[0].stanza()) == [found[0]]


def test_old_apt_lines_are_read_too() -> None:
    text = "# no\ndeb [arch=amd64 signed-by=/k] https://mirror.example/debian bookworm main contrib # why\n"
    assert hostconfig.parse_one_line(text) == [
        hostconfig.Source("https://mirror.example/debian", ("bookworm",), ("main", "contrib"))
    ]


def test_a_machine_without_the_release_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="bookworm"):
        hostconfig.debian_sources(tmp_path)


def test_pip_settings_reach_the_build_and_the_environment_wins() -> None:
    listing = "global.index-url='https://index.example/simple'\n\n:env:.index-url='https://env.example/simple'\n"
    listing += "global.cert='/etc/ssl/mine.pem'\n:env:.find-links='/wheels'"
    lines = hostconfig.pip_config(listing, "/mnt/ca.crt").splitlines()
    assert lines[0] == "[global]"
    assert "index-url = https://env.example/simple" in lines
    assert "cert = /mnt/ca.crt" in lines
    assert not any(line.startswith("find-links") for line in lines)
    assert all(line for line in lines)


def test_apt_options_set_only_how_to_reach_the_sources() -> None:
    dump = 'APT "";\nAcquire::Check-Valid-Until "false";\nAcquire::cdrom "";\nAcquire::http::Proxy "http://p.example";'
    text = hostconfig.apt_options(dump, "/mnt/ca.crt")
    assert "Check-Valid-Until" in text
    assert "Proxy" in text
    assert "cdrom" not in text
    assert 'Acquire::https::CAInfo "/mnt/ca.crt";' in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("operator", "docker.io/conch/operator:dev"),
        ("conch/operator:dev", "docker.io/conch/operator:dev"),
        ("debian", "docker.io/library/debian:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("registry.example:5000/x:1", "registry.example:5000/x:1"),
    ],
)
def test_image_references_are_completed(name: str, expected: str) -> None:
    assert images.reference(name) == expected


def test_mounts_are_removed_from_the_deepest(tmp_path: Path) -> None:
    inside = [tmp_path / "a", tmp_path / "a" / "b c"]
    lines = [f"1 2 0:1 / {str(path).replace(' ', chr(92) + '040')} rw - tmpfs t rw" for path in [*inside, Path("/x")]]
    assert leftovers.mounts_below(tmp_path, "\n".join(lines)) == inside[::-1]


def test_only_shims_of_our_own_socket_are_ours() -> None:
    words = ["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-address", "/s/containerd.sock"]
    assert leftovers.is_shim(words, "/s/containerd.sock")
    assert not leftovers.is_shim(words, "/run/containerd/containerd.sock")
    assert not leftovers.is_shim(["vi", "/s/containerd.sock"], "/s/containerd.sock")
    assert not leftovers.is_shim([], "/s/containerd.sock")


def test_cgroups_of_version_one_are_made_in_every_hierarchy_and_removed(tmp_path: Path) -> None:
    for name in ("cpuset", "memory"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").write_text("")
    assert [path.name for path in cgroups.hierarchies(tmp_path)] == ["cpuset", "memory"]
    cgroups.create("conch/one/node-1", tmp_path)
    assert all((tmp_path / name / "conch/one/node-1").is_dir() for name in ("cpuset", "memory"))
    cgroups.remove("conch/one", tmp_path)
    assert not any((tmp_path / name / "conch").exists() for name in ("cpuset", "memory"))
    cgroups.remove("conch/one", tmp_path)


@pytest.mark.parametrize(("file", "weight"), [("cpu.shares", "16384"), ("cpu.weight", "1600")])
def test_the_pods_weigh_more_than_one_process_of_the_machine(tmp_path: Path, file: str, weight: str) -> None:
    (tmp_path / "cpu" / "conch").mkdir(parents=True)
    (tmp_path / "cpu" / "cgroup.procs").write_text("")
    (tmp_path / "cpu" / "conch" / file).write_text("")
    cgroups.create("conch/one/node-1", tmp_path)
    assert (tmp_path / "cpu" / "conch" / file).read_text() == weight


def test_the_tail_of_a_log_is_short(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert "no log" in tail(log)
    log.write_text("\n".join(map(str, range(100))))
    assert tail(log, 2) == "98\n99"
    assert "98\n99" in str(ClusterError("it broke", log=log, hint="mend it"))
