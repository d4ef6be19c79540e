"""The control plane's components as command lines: pure, apart from the files that ``configure`` writes.

All of them run in the control plane's namespace, so ports never clash with another cluster's. They are tuned for
a small machine: no leader elections, no fsync (the data is worth nothing after a crash), short waits, and little
work at rest, since every story pays for it (`python -m tests.bench.rest` measures it).
"""

from __future__ import annotations

import yaml

from tests.cluster import binaries
from tests.cluster.credentials import Pair, authority, issue, kubeconfig
from tests.cluster.paths import ClusterPaths
from tests.cluster.plan import Plan
from tests.cluster.processes import Component

ETCD, APISERVER = "etcd", "kube-apiserver"
CONTROLLERS, SCHEDULER = "kube-controller-manager", "kube-scheduler"
COREDNS, METRICS, KWOK = "coredns", "metrics-server", "kwok"
AUTOSCALER_SECONDS = 5  # period of a HorizontalPodAutoscaler, instead of 15

ADMINS = "system:masters"
METRICS_PORT = 4443
DNS_PORT = 53
PRIORITY = -8
"""Of each server of the control plane of a cluster with nodes: it weighs as much as six other processes; all pods weigh
as much as sixteen (cgroups.py).

In a real cluster pods do not share their processors with the API server. Beside them its median answer took half a
second, and every leader election of the cluster ended. Without nodes there are no pods, and tests would starve.
"""
GO_ENVIRONMENT = {"GOGC": "400", "GOMEMLIMIT": "1GiB"}
"""Of every Go component: memory is there, so garbage is collected a quarter as often; near 1 GiB as usual."""
LARGE_ENVIRONMENT = {**GO_ENVIRONMENT, "GOMEMLIMIT": "6GiB"}
"""Of a control plane without nodes, which may have thousands of services: with 400, the API server's heap is at 1 GiB,
and garbage takes 28 % of its processor time in place of 11 %; with more services, the more."""

USERS = {
    "admin": ("conch-admin", ADMINS),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "proxy": ("system:kube-proxy", None),
    "coredns": ("cluster:coredns", ADMINS),
    "metrics-server": ("cluster:metrics-server", ADMINS),
    "kwok": ("cluster:kwok", ADMINS),
}
"""Who has a kubeconfig: its file's name, then common name and organization (user and group) in the certificate."""


def flags(**values: object) -> list[str]:
    """Return ``--name=value`` words; underscores become dashes, booleans are written as Go wants them.

    >>> flags(bind_address="0.0.0.0", leader_elect=False)
    ['--bind-address=0.0.0.0', '--leader-elect=false']
    """
    return [f"--{name.replace('_', '-')}={_word(value)}" for name, value in values.items()]


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def audit_policy() -> dict[str, object]:
    """Return the audit policy: every request of users and operators, none of the cluster's own chatter.

    The controllers' writes stay (a test may check who deleted a pod); their reads, leases and events do not.
    """
    own = [user for name, (user, _) in USERS.items() if name not in ("admin", "controller-manager")]
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "users": [*own, "system:apiserver"]},
            {"level": "None", "userGroups": ["system:nodes"]},
            {"level": "None", "nonResourceURLs": ["/healthz*", "/readyz*", "/livez*", "/version", "/openapi/*"]},
            {
                "level": "None",
                "users": ["system:kube-controller-manager"],
                "verbs": ["get", "list", "watch"],
            },
            {
                "level": "None",
                "userGroups": ["system:serviceaccounts:kube-system"],
                "verbs": ["get", "list", "watch"],
            },
            # Where a lost request went is read from them.
            {"level": "Request", "resources": [{"group": "discovery.k8s.io", "resources": ["endpointslices"]}]},
            {"level": "Metadata"},
        ],
    }


def configure(plan: Plan, paths: ClusterPaths) -> None:
    """Write certificates, kubeconfigs and the audit policy, unless an earlier run did."""
    if (paths.pki / "apiserver.key").exists():
        return
    ca, front = authority(f"conch {plan.name}"), authority(f"conch {plan.name} front proxy")
    ca.write(paths.pki / "ca")
    front.write(paths.pki / "front-ca")
    issue(front, "front-proxy-client").write(paths.pki / "front-client")
    issue(ca, "kube-apiserver-kubelet-client", ADMINS).write(paths.pki / "kubelet-client")
    issue(ca, "service-accounts").write(paths.pki / "service-accounts")
    issue(ca, "metrics-server", names=["metrics-server.kube-system.svc"]).write(paths.pki / "metrics-server")
    paths.config.mkdir(parents=True, exist_ok=True)
    for name, (user, group) in USERS.items():
        write_kubeconfig(plan, paths, name, issue(ca, user, group))
    (paths.config / "audit-policy.yaml").write_text(yaml.safe_dump(audit_policy(), sort_keys=False))
    (paths.config / "Corefile").write_text(corefile(plan, paths))
    service = "kubernetes.default"
    names = ["localhost", "kubernetes", service, f"{service}.svc", f"{service}.svc.cluster.local"]
    addresses = ["127.0.0.1", str(plan.control), str(plan.kubernetes_service)]
    issue(ca, "kube-apiserver", names=[*names, *addresses]).write(paths.pki / "apiserver")


def write_kubeconfig(plan: Plan, paths: ClusterPaths, name: str, pair: Pair) -> None:
    """Write one user's kubeconfig, readable by root only."""
    path = paths.kubeconfig(name)
    path.touch(mode=0o600)
    ca = (paths.pki / "ca.crt").read_bytes()
    path.write_text(kubeconfig(plan.name, plan.api_url, ca, name, pair))


def corefile(plan: Plan, paths: ClusterPaths) -> str:
    """Return CoreDNS' configuration: the cluster's zone, and no other, because there is no way out."""
    return f""".:{DNS_PORT} {{
    bind {plan.control}
    errors
    health {plan.control}:8080
    ready {plan.control}:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {paths.kubeconfig("coredns")} {plan.name}
        pods insecure
        ttl 5
    }}
    cache 5
}}
"""


def _component(plan: Plan, paths: ClusterPaths, name: str, health: str, arguments: list[str]) -> Component:
    return Component(
        name=name,
        argv=[str(binaries.program(name)), *arguments],
        netns=plan.control_netns,
        log=str(paths.logs / f"{name}.log"),
        health=health,
        priority=PRIORITY if plan.nodes else 0,
        env=GO_ENVIRONMENT if plan.nodes else LARGE_ENVIRONMENT,
    )


def etcd(plan: Plan, paths: ClusterPaths) -> Component:
    """Return etcd: plain HTTP, on the loopback of the control plane's own namespace."""
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    arguments = flags(
        name=plan.name,
        data_dir=paths.root / "etcd",
        listen_client_urls=client,
        advertise_client_urls=client,
        listen_peer_urls=peer,
        initial_advertise_peer_urls=peer,
        initial_cluster=f"{plan.name}={peer}",
        listen_metrics_urls=f"http://{plan.control}:2381",
        unsafe_no_fsync=True,
        heartbeat_interval=1000,  # ms; a single member sends no heartbeat
        election_timeout=10000,
        log_level="warn",
    )
    return _component(plan, paths, ETCD, f"http://{plan.control}:2381/health", arguments)


def apiserver(plan: Plan, paths: ClusterPaths) -> Component:
    """Return the API server, with aggregation and audit on and everything else as a real cluster has it."""
    pki = paths.pki
    arguments = flags(
        etcd_servers="http://127.0.0.1:2379",
        bind_address=plan.control,
        advertise_address=plan.control,
        secure_port=6443,
        service_cluster_ip_range=plan.services,
        authorization_mode="Node,RBAC",
        enable_admission_plugins="NodeRestriction",
        allow_privileged=True,
        client_ca_file=pki / "ca.crt",
        tls_cert_file=pki / "apiserver.crt",
        tls_private_key_file=pki / "apiserver.key",
        kubelet_certificate_authority=pki / "ca.crt",
        kubelet_client_certificate=pki / "kubelet-client.crt",
        kubelet_client_key=pki / "kubelet-client.key",
        kubelet_preferred_address_types="InternalIP",
        service_account_issuer="https://kubernetes.default.svc.cluster.local",
        service_account_key_file=pki / "service-accounts.crt",
        service_account_signing_key_file=pki / "service-accounts.key",
        requestheader_client_ca_file=pki / "front-ca.crt",
        requestheader_allowed_names="front-proxy-client",
        requestheader_extra_headers_prefix="X-Remote-Extra-",
        requestheader_group_headers="X-Remote-Group",
        requestheader_username_headers="X-Remote-User",
        proxy_client_cert_file=pki / "front-client.crt",
        proxy_client_key_file=pki / "front-client.key",
        enable_aggregator_routing=True,
        audit_policy_file=paths.config / "audit-policy.yaml",
        audit_log_path=paths.audit_log,
        audit_log_maxsize=2000,
        etcd_count_metric_poll_period=0,  # a count of every resource each minute, which no test reads
        # Sizes for the cost of lists are read from etcd for every resource: a tenth of what the server did at rest.
        feature_gates="SizeBasedListCostEstimate=false",
        default_not_ready_toleration_seconds=30,
        default_unreachable_toleration_seconds=30,
        profiling=False,
    )
    return _component(plan, paths, APISERVER, f"{plan.api_url}/readyz", arguments)


def controller_manager(plan: Plan, paths: ClusterPaths) -> Component:
    """Return the controllers; autoscaling and the loss of a node are noticed sooner than by default."""
    config = paths.kubeconfig("controller-manager")
    arguments = flags(
        kubeconfig=config,
        authentication_kubeconfig=config,
        authorization_kubeconfig=config,
        bind_address=plan.control,
        root_ca_file=paths.pki / "ca.crt",
        cluster_signing_cert_file=paths.pki / "ca.crt",
        cluster_signing_key_file=paths.pki / "ca.key",
        service_account_private_key_file=paths.pki / "service-accounts.key",
        requestheader_client_ca_file=paths.pki / "front-ca.crt",
        use_service_account_credentials=True,
        leader_elect=False,
        horizontal_pod_autoscaler_sync_period=f"{AUTOSCALER_SECONDS}s",
        # A node that is late has its pods marked not ready; a kubelet marks them ready again, and kwok does not.
        node_monitor_grace_period="24s" if plan.nodes_count else "10m",
        cluster_name=plan.name,
        profiling=False,
    )
    return _component(plan, paths, CONTROLLERS, f"https://{plan.control}:10257/healthz", arguments)


def scheduler(plan: Plan, paths: ClusterPaths) -> Component:
    """Return the scheduler."""
    config = paths.kubeconfig("scheduler")
    arguments = flags(
        kubeconfig=config,
        authentication_kubeconfig=config,
        authorization_kubeconfig=config,
        bind_address=plan.control,
        leader_elect=False,
        profiling=False,
    )
    return _component(plan, paths, SCHEDULER, f"https://{plan.control}:10259/healthz", arguments)


def coredns(plan: Plan, paths: ClusterPaths) -> Component:
    """Return CoreDNS, a plain process beside the API server: DNS then needs no image and no node."""
    arguments = ["-conf", str(paths.config / "Corefile")]
    return _component(plan, paths, COREDNS, f"http://{plan.control}:8181/ready", arguments)


def metrics_server(plan: Plan, paths: ClusterPaths) -> Component:
    """Return metrics-server; a kubelet must answer sooner than the next round starts, or it refuses to start."""
    config = paths.kubeconfig("metrics-server")
    arguments = flags(
        kubeconfig=config,
        authentication_kubeconfig=config,
        authorization_kubeconfig=config,
        bind_address=plan.control,
        secure_port=METRICS_PORT,
        tls_cert_file=paths.pki / "metrics-server.crt",
        tls_private_key_file=paths.pki / "metrics-server.key",
        kubelet_certificate_authority=paths.pki / "ca.crt",
        kubelet_preferred_address_types="InternalIP",
        metric_resolution="15s",
        kubelet_request_timeout="5s",
    )
    return _component(plan, paths, METRICS, f"https://{plan.control}:{METRICS_PORT}/livez", arguments)


def kwok(plan: Plan, paths: ClusterPaths) -> Component:
    """Return kwok, which plays the kubelet of every node that carries its annotation."""
    arguments = flags(
        kubeconfig=paths.kubeconfig("kwok"),
        manage_all_nodes=False,
        manage_nodes_with_annotation_selector="kwok.x-k8s.io/node=fake",
        cidr=plan.pods,
        node_ip=plan.control,
        node_lease_duration_seconds=40,
        server_address=f"{plan.control}:10247",
    )
    arguments += [f"--config={path}" for path in binaries.manifests("kwok")]
    return _component(plan, paths, KWOK, f"http://{plan.control}:10247/healthz", arguments)
