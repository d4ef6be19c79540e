"""Command lines and configuration files of the components, without starting any."""

import json
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml

from tests.cluster import addons, archive, binaries, controlplane, worker
from tests.cluster.credentials import authority, issue, kubeconfig
from tests.cluster.paths import ClusterPaths
from tests.cluster.plan import Plan
from tests.cluster.processes import Component

PLAN = Plan("conch", 1, 2)
PATHS = ClusterPaths(Path("/state/conch"))


@pytest.fixture(autouse=True)
def _no_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "program", lambda name: Path("/bin") / name)
    monkeypatch.setattr(binaries, "manifests", lambda name: [Path(f"/{name}.yaml")])


def _flags(component: Component) -> dict[str, str]:
    pairs = (word.partition("=") for word in component.argv[1:])
    return {name: value for name, _, value in pairs}


def test_flags_are_written_as_go_reads_them() -> None:
    assert controlplane.flags(leader_elect=False, v=1) == ["--leader-elect=false", "--v=1"]


def test_a_control_plane_without_nodes_has_memory_for_thousands_of_services() -> None:
    limits = [controlplane.apiserver(plan, PATHS).env["GOMEMLIMIT"] for plan in (PLAN, Plan("conch", 1, 0))]
    assert limits == ["1GiB", "6GiB"]


def test_the_api_server_is_a_real_one() -> None:
    given = _flags(controlplane.apiserver(PLAN, PATHS))
    assert given["--authorization-mode"] == "Node,RBAC"
    assert given["--enable-aggregator-routing"] == "true"
    assert given["--audit-log-path"] == str(PATHS.audit_log)
    assert "PodSecurity" not in given.get("--disable-admission-plugins", "")
    assert {name for name in given if name.startswith("--requestheader-")} >= {
        "--requestheader-client-ca-file",
        "--requestheader-allowed-names",
    }


def test_the_hpa_looks_every_five_seconds() -> None:
    given = _flags(controlplane.controller_manager(PLAN, PATHS))
    assert given["--horizontal-pod-autoscaler-sync-period"] == "5s"
    assert given["--leader-elect"] == "false"


def test_a_kubelet_answers_before_the_next_round_of_metrics() -> None:
    given = _flags(controlplane.metrics_server(PLAN, PATHS))
    seconds = [int(given[name].rstrip("s")) for name in ("--kubelet-request-timeout", "--metric-resolution")]
    assert seconds[0] < seconds[1]


def test_no_component_listens_outside_the_cluster() -> None:
    makers = (controlplane.etcd, controlplane.apiserver, controlplane.scheduler, controlplane.kwok)
    assert {maker(PLAN, PATHS).netns for maker in makers} == {"conch-control"}


def test_audit_keeps_users_and_drops_the_clusters_own_chatter() -> None:
    policy = controlplane.audit_policy()
    assert policy["omitStages"] == ["RequestReceived"]
    rules = policy["rules"]
    assert isinstance(rules, list)
    assert rules[-1] == {"level": "Metadata"}
    silenced = {user for rule in rules[:-1] for user in rule.get("users", [])}
    assert controlplane.USERS["admin"][0] not in silenced


def test_two_kubelets_share_nothing() -> None:
    configs = [worker.kubelet_config(PLAN, PATHS, node) for node in PLAN.nodes]
    for key in ("podLogsDir", "cgroupRoot", "containerRuntimeEndpoint", "healthzBindAddress", "tlsCertFile"):
        assert configs[0][key] != configs[1][key], key
    assert all(config["failCgroupV1"] is False for config in configs)


def test_kube_proxy_distinguishes_pods_from_the_host() -> None:
    config = worker.proxy_config(PLAN, PATHS, PLAN.nodes[0])
    assert PLAN.host not in ip_network(config["clusterCIDR"])
    assert config["conntrack"]["maxPerCore"] == 0


def test_the_socket_path_fits_the_kernel() -> None:
    paths = ClusterPaths(Path("/var/lib/conch") / ("a" * 20))
    plan = Plan("a" * 20, 0, 8)
    assert all(len(f"{worker.socket(paths, node)}.ttrpc") <= 107 for node in plan.nodes)


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("/dev/vda / ext4 rw 0 0", "overlayfs"),
        ("overlay / overlay rw 0 0", "native"),
        ("overlay / overlay rw 0 0\n/dev/vdb /state ext4 rw 0 0", "overlayfs"),
    ],
)
def test_overlayfs_is_not_stacked(mounts: str, expected: str) -> None:
    assert worker.snapshotter(Path("/state/conch"), mounts) == expected


def test_services_without_selector_lead_to_the_control_plane() -> None:
    service, slice_ = addons.dns(PLAN)
    assert service["spec"]["clusterIP"] == str(PLAN.dns_service)
    assert "selector" not in service["spec"]
    assert slice_["endpoints"][0]["addresses"] == [str(PLAN.control)]
    assert slice_["metadata"]["labels"]["kubernetes.io/service-name"] == service["metadata"]["name"]


def test_every_volume_belongs_to_one_node_and_one_folder() -> None:
    volumes = addons.volumes(PLAN, PATHS)
    assert len(volumes) == 2 * worker.VOLUMES_PER_NODE
    assert len({volume["spec"]["local"]["path"] for volume in volumes}) == len(volumes)


def test_a_kubeconfig_carries_everything_inside() -> None:
    ca = authority("test")
    text = kubeconfig("conch", "https://198.18.0.2:6443", ca.certificate, "admin", issue(ca, "me", "system:masters"))
    assert yaml.safe_load(text)["current-context"] == "conch"
    assert "/" not in yaml.safe_load(text)["users"][0]["user"]["client-key-data"][:1]


def test_an_image_is_made_without_an_engine(tmp_path: Path) -> None:
    import tarfile  # noqa: PLC0415 - only this test opens tars

    archive.write_image(tmp_path / "i.tar", "docker.io/conch/pause:1", b"program", "pause")
    with tarfile.open(tmp_path / "i.tar") as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        config = json.loads(tar.extractfile(manifest[0]["Config"]).read())  # type: ignore[union-attr]
    assert manifest[0]["RepoTags"] == ["docker.io/conch/pause:1"]
    assert config["config"]["Entrypoint"] == ["/pause"]
    assert config["config"]["User"] == "65535:65535"
