"""The address plan of a cluster: pure arithmetic, so that two clusters can never meet.

Every address comes out of 198.18.0.0/15, which RFC 2544 reserves for tests of network devices: no packet
with such an address is routed on the Internet. The lower half is cut in 16 slots of a /20 each; a cluster takes one.
The upper half is the Services of all clusters without nodes, where no packet reaches a Service: a test may create
thousands of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from tests.cluster.errors import ClusterError

BLOCK = IPv4Network("198.18.0.0/15")
_SLOTTED, SERVICES_WITHOUT_NODES = BLOCK.subnets(new_prefix=16)
SLOTS = list(_SLOTTED.subnets(new_prefix=20))
MAX_NODES = 8
_FIRST_NODE_ADDRESS = 11
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")


@dataclass(frozen=True)
class Node:
    """One real node: its name in Kubernetes, its network namespace, its addresses."""

    index: int
    name: str
    netns: str
    address: IPv4Address
    pods: IPv4Network


@dataclass(frozen=True)
class Plan:
    """All names and addresses of one cluster, computed from its name, its slot and its number of nodes.

    The slot's /20 is used so: the first /24 links the host (.1), the control plane (.2) and the nodes (.11 on);
    the second /22 are the Services, if there are nodes; the upper half are the pods, a /24 per node.
    """

    name: str
    slot: int
    nodes_count: int
    kwok: bool = False

    def __post_init__(self) -> None:
        """Refuse what has no place in the plan."""
        if not _NAME.fullmatch(self.name):
            message = f"cluster name {self.name!r}: expected 1 to 20 of a-z, 0-9 and '-', starting with a letter"
            raise ClusterError(message, hint="choose a shorter, plainer --name")
        if not 0 <= self.nodes_count <= MAX_NODES:
            message = f"--nodes {self.nodes_count}: expected 0 to {MAX_NODES}"
            raise ClusterError(message, hint="a machine that runs more real nodes has not been seen")
        if not 0 <= self.slot < len(SLOTS):
            message = f"slot {self.slot}: expected 0 to {len(SLOTS) - 1}"
            raise ClusterError(message, hint="take down clusters that are no longer used")

    @property
    def network(self) -> IPv4Network:
        """The cluster's /20."""
        return SLOTS[self.slot]

    @property
    def link(self) -> IPv4Network:
        """The /24 that host, control plane and nodes share."""
        return next(self.network.subnets(new_prefix=24))

    @property
    def host(self) -> IPv4Address:
        """The machine's own address on the link; what runs on the machine is reachable there from pods."""
        return self.link[1]

    @property
    def control(self) -> IPv4Address:
        """The control plane's address."""
        return self.link[2]

    @property
    def pods(self) -> IPv4Network:
        """The network of all pods, apart from the link: kube-proxy must know pods from sources outside."""
        return list(self.network.subnets(new_prefix=21))[1]

    @property
    def services(self) -> IPv4Network:
        """The Services' /22; without nodes, a /16."""
        if not self.nodes_count:
            return SERVICES_WITHOUT_NODES
        return list(self.network.subnets(new_prefix=22))[1]

    @property
    def kubernetes_service(self) -> IPv4Address:
        """The cluster address of the API server."""
        return self.services[1]

    @property
    def dns_service(self) -> IPv4Address:
        """The cluster address of the DNS server."""
        return self.services[10]

    @property
    def api_url(self) -> str:
        """Where the host and every component find the API server."""
        return f"https://{self.control}:6443"

    @property
    def control_netns(self) -> str:
        """The network namespace of the control plane."""
        return f"{self.name}-control"

    @property
    def host_link(self) -> str:
        """The name of the host's end of the veth pair (an interface name has 15 characters at most)."""
        return f"conch{self.slot}"

    @property
    def cgroup(self) -> str:
        """The cgroup, in every hierarchy, below which the pods of all nodes live."""
        return f"conch-cluster/{self.name}"

    @property
    def nodes(self) -> list[Node]:
        """The real nodes, in order."""
        subnets = list(self.pods.subnets(new_prefix=24))
        return [
            Node(
                index=i,
                name=f"node-{i}",
                netns=f"{self.name}-node-{i}",
                address=self.link[_FIRST_NODE_ADDRESS + i - 1],
                pods=subnets[i - 1],
            )
            for i in range(1, self.nodes_count + 1)
        ]

    def record(self) -> dict[str, Any]:
        """Return what has to be stored so that a later command computes the same plan."""
        return asdict(self)


def free_slot(taken: Iterable[int]) -> int:
    """Return the lowest slot that no other cluster has; raises when all 16 are taken.

    >>> free_slot([0, 1, 3])
    2
    """
    used = set(taken)
    for slot in range(len(SLOTS)):
        if slot not in used:
            return slot
    message = f"all {len(SLOTS)} address slots are taken by other clusters"
    raise ClusterError(message, hint=".venv/bin/python -m tests.cluster down --name OLD")
