"""Network namespaces and the cables between them.

One Ethernet segment joins host, control plane and nodes: a bridge inside the control plane's namespace. Every
side has one route per node's pods and one for the Services; neither side has a default route, so whatever a test
sends ends inside.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.cluster.plan import Node, Plan
from tests.cluster.shell import run

_NETNS = Path("/var/run/netns")
_BRIDGE = "link0"


def inside(netns: str, *argv: str) -> list[str]:
    """Return the command line that runs ``argv`` in a network namespace."""
    return ["nsenter", f"--net={_NETNS / netns}", *argv]


def exists(netns: str) -> bool:
    """Whether a namespace of that name exists."""
    return (_NETNS / netns).exists()


def routes(plan: Plan, own: Node | None = None) -> list[tuple[IPv4Network, IPv4Address]]:
    """Return the routes of the host or the control plane, or of one node: pods by node, Services by the first.

    A node answers for Services itself (kube-proxy); everyone else sends them to the first node, whose kube-proxy
    masquerades what does not come from a pod, so that answers find their way back through it.
    """
    found = [(node.pods, node.address) for node in plan.nodes if node != own]
    if own is None and plan.nodes:
        found.append((plan.services, plan.nodes[0].address))
    return found


def create(plan: Plan) -> None:
    """Make all namespaces, cables, addresses and routes; what is there already is left alone."""
    if not exists(plan.control_netns):
        _create_namespace(plan.control_netns)
        _in(plan.control_netns, f"link add {_BRIDGE} type bridge")
        _in(plan.control_netns, f"addr add {plan.control}/{plan.link.prefixlen} dev {_BRIDGE}")
        _in(plan.control_netns, f"link set {_BRIDGE} up")
        _ip(f"link add {plan.host_link} type veth peer name host netns {plan.control_netns}")
        _plug(plan, "host")
        _ip(f"addr add {plan.host}/{plan.link.prefixlen} dev {plan.host_link}")
        _ip(f"link set {plan.host_link} up")
    for node in plan.nodes:
        if not exists(node.netns):
            _create_namespace(node.netns)
            cable = f"link add {node.name} netns {plan.control_netns} type veth peer name eth0 netns {node.netns}"
            _ip(cable)
            _plug(plan, node.name)
            _in(node.netns, f"addr add {node.address}/{plan.link.prefixlen} dev eth0")
            _in(node.netns, "link set eth0 up")
        join(plan, node)
        for network, via in routes(plan, node):
            _in(node.netns, f"route replace {network} via {via}")
        # What a node itself sends to a Service, such as a pull: kube-proxy puts a pod's address in place of it.
        _in(node.netns, f"route replace {plan.services} dev eth0")
    for network, via in routes(plan):
        _ip(f"route replace {network} via {via}")
        _in(plan.control_netns, f"route replace {network} via {via}")


def cut(plan: Plan, node: Node) -> None:
    """Pull a node's cable: what is sent to it is lost without an answer, as when its power is gone."""
    _in(plan.control_netns, f"link set {node.name} down")


def join(plan: Plan, node: Node) -> None:
    """Put a node's cable back; one that is in its place stays."""
    _in(plan.control_netns, f"link set {node.name} up")


def remove(plan: Plan) -> None:
    """Remove the namespaces; the kernel takes cables and routes with them."""
    for netns in (plan.control_netns, *(node.netns for node in plan.nodes)):
        if exists(netns):
            _ip(f"netns del {netns}")
    # A cable whose other end was in a namespace goes a moment after the namespace: do not wait for it.
    run(["ip", "link", "del", plan.host_link], check=False)


def _create_namespace(netns: str) -> None:
    _ip(f"netns add {netns}")
    _in(netns, "link set lo up")
    # Settings below /proc/sys/net belong to the namespace of the process that writes them.
    settings = ("ipv4.ip_forward=1", "ipv4.conf.all.rp_filter=0", "ipv4.conf.default.rp_filter=0")
    for setting in settings:
        key, _, value = setting.partition("=")
        path = "/proc/sys/net/" + key.replace(".", "/")
        run(inside(netns, "sh", "-c", f"echo {value} > {path}"))


def _plug(plan: Plan, interface: str) -> None:
    _in(plan.control_netns, f"link set {interface} master {_BRIDGE}")
    _in(plan.control_netns, f"link set {interface} up")


def _ip(arguments: str) -> None:
    run(["ip", *arguments.split()], hint="the tool needs root and the iproute2 package")


def _in(netns: str, arguments: str) -> None:
    run(inside(netns, "ip", *arguments.split()))
