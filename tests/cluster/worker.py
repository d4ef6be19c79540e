"""One real node: containerd, kubelet and kube-proxy, with folders, sockets and cgroups of their own.

Two kubelets on one machine share a kernel, so all that a kubelet normally takes for granted as its own is given
to it by name: above all its ``podLogsDir``, which two kubelets would otherwise clean for each other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import binaries
from tests.cluster.controlplane import GO_ENVIRONMENT, flags, write_kubeconfig
from tests.cluster.credentials import Pair, issue
from tests.cluster.paths import ClusterPaths
from tests.cluster.plan import Node, Plan
from tests.cluster.processes import Component

PAUSE_IMAGE = f"docker.io/conch/pause:{binaries.PAUSE_VERSION}"
VOLUMES_PER_NODE = 10
_CNI_BINARIES = "/usr/lib/cni"
_REGISTRIES = "registries"


def socket(paths: ClusterPaths, node: Node) -> Path:
    """Return the socket of a node's containerd."""
    return paths.node(node.name) / "containerd.sock"


def image_store(paths: ClusterPaths, node: Node) -> tuple[Path, str]:
    """Return the folder of a node's containerd, and the name of the snapshotter by which it keeps images."""
    folder = paths.node(node.name)
    return folder / "containerd", snapshotter(folder)


def cgroup(plan: Plan, node: Node) -> str:
    """Return the cgroup of a node's pods."""
    return f"{plan.cgroup}/{node.name}"


def network_name(plan: Plan, node: Node) -> str:
    """Return the name of a node's pod network; libcni names its cached results after it."""
    return f"{plan.name}-{node.name}"


def cni_config(plan: Plan, node: Node, data: Path) -> dict[str, Any]:
    """Return the pods' network: a routed pair per pod.

    Routed, not bridged: between two pods on one bridge an answer does not pass the node's address translation,
    so a pod that calls a Service which leads to its neighbour would get an answer from an unknown address.
    """
    ipam = {"type": "host-local", "dataDir": str(data), "ranges": [[{"subnet": str(node.pods)}]]}
    return {
        "cniVersion": "0.4.0",
        "name": network_name(plan, node),
        "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": {**ipam, "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ],
    }


def containerd_config(folder: Path, snapshotter: str) -> str:
    """Return containerd's configuration: nothing is shared with a containerd that the machine may run."""
    return f"""version = 4
root = "{folder}/containerd"
state = "{folder}/run"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]

[plugins."io.containerd.server.v1.grpc"]
  address = "{folder}/containerd.sock"

[plugins."io.containerd.server.v1.ttrpc"]
  address = "{folder}/containerd.sock.ttrpc"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  pinned_images = {{sandbox = "{PAUSE_IMAGE}"}}
  registry = {{config_path = "{folder}/{_REGISTRIES}"}}

[plugins."io.containerd.cri.v1.runtime"]
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      runtime_path = "{binaries.program("containerd-shim-runc-v2")}"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{folder}/runc"
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{_CNI_BINARIES}"]
    conf_dir = "{folder}/cni"
"""


def kubelet_config(plan: Plan, paths: ClusterPaths, node: Node) -> dict[str, Any]:
    """Return the kubelet's configuration for either version of cgroups, on a machine that it shares."""
    folder = paths.node(node.name)
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",  # noqa: S104 - every address of the node's own namespace
        "healthzBindAddress": str(node.address),
        "containerRuntimeEndpoint": f"unix://{socket(paths, node)}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(paths.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(paths.pki / f"{node.name}-server.crt"),
        "tlsPrivateKeyFile": str(paths.pki / f"{node.name}-server.key"),
        "clusterDNS": [str(plan.dns_service)],
        "clusterDomain": "cluster.local",
        "resolvConf": str(folder / "resolv.conf"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup(plan, node)}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "podLogsDir": str(folder / "pod-logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        "staticPodPath": "",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "oomScoreAdj": 0,
        "serializeImagePulls": False,
        "syncFrequency": "30s",
        "fileCheckFrequency": "0s",
        "shutdownGracePeriod": "0s",
        # Little work at rest: nothing reads the sizes of volumes, and logs are small.
        "volumeStatsAggPeriod": "-1s",
        "containerLogMonitorInterval": "1m",
        "nodeStatusUpdateFrequency": "20s",
        "enableProfilingHandler": False,
    }


def proxy_config(plan: Plan, paths: ClusterPaths, node: Node) -> dict[str, Any]:
    """Return kube-proxy's configuration: iptables, and no touching of the machine's global conntrack limits."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(paths.kubeconfig("proxy"))},
        "mode": "iptables",
        "hostnameOverride": node.name,
        "bindAddress": str(node.address),
        "healthzBindAddress": f"{node.address}:10256",
        "clusterCIDR": str(plan.pods),
        "detectLocalMode": "ClusterCIDR",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
    }


def configure(plan: Plan, paths: ClusterPaths, node: Node) -> None:
    """Write a node's certificates and configuration files."""
    folder = paths.node(node.name)
    for part in ("cni", "kubelet", "pod-logs", "volume-plugins", "volumes"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    if not paths.kubeconfig(node.name).exists():
        ca = Pair.read(paths.pki / "ca")
        issue(ca, node.name, names=[node.name, str(node.address)]).write(paths.pki / f"{node.name}-server")
        write_kubeconfig(plan, paths, node.name, issue(ca, f"system:node:{node.name}", "system:nodes"))
    cni = cni_config(plan, node, folder / "addresses")
    _write(folder / "cni" / "10-pods.conflist", json.dumps(cni, indent=1))
    _write(folder / "resolv.conf", f"nameserver {plan.dns_service}\n")
    _write(folder / "containerd.toml", containerd_config(folder, snapshotter(folder)))
    _write(folder / "kubelet.yaml", yaml.safe_dump(kubelet_config(plan, paths, node), sort_keys=False))
    _write(folder / "kube-proxy.yaml", yaml.safe_dump(proxy_config(plan, paths, node), sort_keys=False))
    for index in range(VOLUMES_PER_NODE):
        volume = folder / "volumes" / f"volume-{index}"
        if not volume.exists():
            volume.mkdir()
            volume.chmod(0o777)


def add_registry(paths: ClusterPaths, node: Node, name: str, url: str) -> None:
    """Have a node's containerd send to a URL what it would send to a registry; it reads this at each pull."""
    folder = paths.node(node.name) / _REGISTRIES / name
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "hosts.toml", f'server = "{url}"\n')


def _write(file: Path, text: str) -> None:
    """Write a file unless it has that text already: kube-proxy ends when its own is written, changed or not."""
    if not file.exists() or file.read_text() != text:
        file.write_text(text)


def snapshotter(folder: Path, mounts: str | None = None) -> str:
    """Return the snapshotter that works below ``folder``: overlayfs cannot be stacked upon overlayfs."""
    text = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    best, kind = "", ""
    for line in text.splitlines():
        _, point, filesystem, *_ = line.split()
        if len(point) >= len(best) and folder.is_relative_to(point):
            best, kind = point, filesystem
    return "native" if kind == "overlay" else "overlayfs"


def containerd(paths: ClusterPaths, node: Node) -> Component:
    """Return a node's container runtime."""
    folder = paths.node(node.name)
    argv = [str(binaries.program("containerd")), "--config", str(folder / "containerd.toml"), "--log-level", "warn"]
    return _component(paths, node, "containerd", str(socket(paths, node)), argv)


def kubelet(paths: ClusterPaths, node: Node) -> Component:
    """Return a node's kubelet; containerd's socket must exist before it starts."""
    folder = paths.node(node.name)
    argv = flags(
        config=folder / "kubelet.yaml",
        kubeconfig=paths.kubeconfig(node.name),
        root_dir=folder / "kubelet",
        cert_dir=folder / "kubelet-pki",
        hostname_override=node.name,
        node_ip=node.address,
        node_labels=f"topology.kubernetes.io/zone=zone-{node.index}",
        housekeeping_interval="15s",  # as often as metrics-server reads what it finds
        v=1,
    )
    argv.insert(0, str(binaries.program("kubelet")))
    return _component(paths, node, "kubelet", f"http://{node.address}:10248/healthz", argv)


def kube_proxy(paths: ClusterPaths, node: Node) -> Component:
    """Return what makes Services work on a node."""
    logs = flags(v=2)  # each time it has written its rules
    argv = [str(binaries.program("kube-proxy")), *flags(config=paths.node(node.name) / "kube-proxy.yaml"), *logs]
    return _component(paths, node, "kube-proxy", f"http://{node.address}:10256/healthz", argv)


def _component(paths: ClusterPaths, node: Node, program: str, health: str, argv: list[str]) -> Component:
    name = f"{node.name}.{program}"
    log = str(paths.logs / f"{name}.log")
    return Component(name, argv, node.netns, log, health, env=dict(GO_ENVIRONMENT))
