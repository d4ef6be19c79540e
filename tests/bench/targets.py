"""The targets P1 to P17: what each requires, and how it is evaluated from the figures of the bench.

A target that names a number of services is evaluated for that number alone: other runs are for reading.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Final

from tests.bench import peer
from tests.bench.criteria import Criterion, Reading, Results, at_most, by_reference, median, show
from tests.bench.fetches import read_fetches, read_layout, read_warm_start
from tests.bench.services import CHILDREN_EACH
from tests.bench.slope import Slope, describe

BURST: Final = 500  # services, as the target states; likewise below
MANY: Final = 2_000
PACED: Final = 200
RATE: Final = 10.0  # creations a second


def read_rest_writes(results: Results) -> Reading | None:
    """P2: writes while nothing happens, with the most services that were measured, of at least 2,000."""
    sizes = [size for size in results.get("scale", ()) if size["services"] >= MANY]
    if not sizes:
        return None
    writes = max(size["rest_writes"] for size in sizes)
    return Reading(f"{writes} ({max(size['services'] for size in sizes):,} services)", writes == 0)


def read_restart_writes(results: Results) -> Reading | None:
    """P2: writes of a restart; KServe's are those with 200 services."""
    writes = median(results, "restart", "conch", "writes", services=MANY)
    reference = median(results, "restart", "R", "writes", services=MANY)
    if writes is None:
        return None
    kserve = f"{peer.KSERVE.restart_writes} ({peer.SERVICES} services)"
    return Reading(show(writes, ""), writes == 0, show(reference, ""), kserve)


def read_peer_rate(results: Results) -> Reading | None:
    """P13: children a second in multiples of R, beside KServe's."""
    rates = [median(results, "burst", who, "services_per_second", services=peer.SERVICES) for who in ("conch", "R")]
    if rates[0] is None or not rates[1]:
        return None
    conch = rates[0] / rates[1]
    children = [f"{CHILDREN_EACH * rate:.0f}/s" for rate in rates if rate is not None]
    return Reading(
        f"{children[0]} ({conch:.2f} R)", conch >= 2 * peer.RATE, children[1], f"{peer.RATE:.2f} R", conch / peer.RATE
    )


def read_peer_cpu(results: Results) -> Reading | None:
    """P13: processor time of a child in multiples of R, beside KServe's."""
    times = [median(results, "burst", who, "cpu_ms_per_child", services=peer.SERVICES) for who in ("conch", "R")]
    if times[0] is None or not times[1]:
        return None
    conch = times[0] / times[1]
    return Reading(
        f"{times[0]:g} ms ({conch:.1f} R)",
        conch <= peer.CPU / 2,
        f"{times[1]:g} ms",
        f"{peer.CPU:.1f} R",
        conch / peer.CPU,
    )


def read_peer_bound(figure: str, unit: str, bound: float) -> Callable[[Results], Reading | None]:
    """Return the reading of a figure of the burst that is below KServe's."""

    def read(results: Results) -> Reading | None:
        conch = median(results, "burst", "conch", figure, services=peer.SERVICES)
        reference = median(results, "burst", "R", figure, services=peer.SERVICES)
        if conch is None:
            return None
        return Reading(show(conch, unit), conch < bound, show(reference, unit), show(bound, unit), conch / bound)

    return read


def read_autoscaler(results: Results) -> Reading | None:
    """P10: the longest rise."""
    if not (found := results.get("autoscaler")):
        return None
    longest, period = max(found["seconds"]), found["period_seconds"]
    measured = f"{longest:.1f} s at most, {statistics.median(found['seconds']):.1f} s median, period {period:g} s"
    return Reading(measured, longest <= period + 1, ratio=longest / period)


def read_rest(results: Results) -> Reading | None:
    """P17: share of the local cluster at rest, of two cores."""
    if not (shares := results.get("rest")):
        return None
    used = 100 * sum(shares.values()) / 2
    return Reading(f"{used:.1f} % of two cores", used <= 10)


def read_edits(where: str) -> Callable[[Results], Reading | None]:
    """P5: return the reading of one user's edits, in the burst's namespace (`same`) or in another one (`other`)."""

    def read(results: Results) -> Reading | None:
        ratio = median(results, "edits", "conch", f"{where}_p99_ratio", services=MANY)
        burst = median(results, "edits", "conch", f"{where}_burst_p99_ms", services=MANY)
        if ratio is None:
            return None
        return Reading(show(burst, "ms"), ratio <= 5, ratio=ratio)

    return read


def read_slope(results: Results) -> Reading | None:
    """Growth of memory in a day. A leak is a slope whose interval is above 0; without a leak, 0 is in the interval."""
    if not (found := results.get("churn")):
        return None
    return Reading(f"{describe(Slope(**found['mib_a_day']))}; {found['minutes']:g} minutes", None)


CRITERIA: Final = (
    Criterion(
        "P1",
        "writes until all children of a service exist",
        f"{CHILDREN_EACH + 1}",
        at_most("burst", "writes_until_present", "", CHILDREN_EACH + 1),
    ),
    Criterion("P2", "writes in 30 s of rest", "0", read_rest_writes),
    Criterion("P2", "writes after a restart, 2,000 services", "0", read_restart_writes),
    Criterion(
        "P2",
        "a restart, 2,000 services",
        "<= 2 R",
        by_reference("restart", "settled_seconds", "s", 2, services=MANY),
    ),
    Criterion(
        "P3",
        "10 creations a second: children present, p50",
        "<= 1.25 R",
        by_reference("paced", "present_p50_ms", "ms", 1.25, services=PACED, rate=RATE),
    ),
    Criterion(
        "P3",
        "10 creations a second: children present, p99",
        "<= 1.5 R",
        by_reference("paced", "present_p99_ms", "ms", 1.5, services=PACED, rate=RATE),
    ),
    Criterion(
        "P4",
        "burst of 500: services a second",
        ">= 0.9 R",
        by_reference("burst", "services_per_second", "", 0.9, at_least=True, services=BURST),
    ),
    Criterion(
        "P4",
        "burst of 500: processor time of a child",
        "<= 1.5 R",
        by_reference("burst", "cpu_ms_per_child", "ms", 1.5, services=BURST),
    ),
    Criterion("P5", "an edit in a burst of 2,000, same namespace: p99", "<= 5 x idle", read_edits("same")),
    Criterion("P5", "an edit in a burst of 2,000, other namespace: p99", "<= 5 x idle", read_edits("other")),
    Criterion(
        "P6",
        "memory of a service, 2,000 services",
        "<= 31 KiB",
        at_most("burst", "kib_each", "KiB", 31, services=MANY),
    ),
    Criterion("P7", "fetch, verified, to the slower of s5cmd and sha256sum", ">= 0.9", read_fetches("slower", 0.9)),
    Criterion("P7", "fetch, verified, to kserve-storage", ">= 2", read_fetches("kserve-storage", 2)),
    Criterion("P7", "fetch, verified, to s5cmd, then sha256sum", ">= 1", read_fetches("s5cmd, sha256sum", 1)),
    Criterion("P8", "2 GiB laid out from a warm cache", "<= 10 ms", read_layout),
    Criterion("P9", "hops added to the request path", "0", where="by design: e2e"),
    Criterion("P10", "requests that wait to desired replicas", "<= period + 1 s", read_autoscaler),
    Criterion("P11", "failed requests over 50 swaps, and their p99", "0; <= 1.5 x steady", where="make test-long"),
    Criterion("P12", "a pod's first answer from a warm cache, beside Triton alone", "<= 1 s more", read_warm_start),
    Criterion("P13", "burst of 200: children a second", ">= 2 x KServe's", read_peer_rate),
    Criterion("P13", "burst of 200: processor time of a child", "<= 0.5 x KServe's", read_peer_cpu),
    Criterion(
        "P13",
        "burst of 200: memory of a service",
        "< KServe's",
        read_peer_bound("kib_each", "KiB", peer.KSERVE.kib_each),
    ),
    Criterion(
        "P13",
        "burst of 200: reads of a service",
        "< KServe's",
        read_peer_bound("reads_each", "", peer.KSERVE.reads_each),
    ),
    Criterion("P14", "make demo with nothing cached; warm", "<= 9 min; <= 60 s", where="make demo"),
    Criterion("P15", ".ci/run, warm", "<= 20 min", where=".ci/run"),
    Criterion("P16", "the leader at rest, no service", "<= 1 %", at_most("idle", "leader_percent", "%", 1)),
    Criterion("P16", "the standby at rest", "<= 0.5 %", at_most("idle", "standby_percent", "%", 0.5)),
    Criterion("P17", "the local cluster at rest", "<= 10 % of two cores", read_rest, "tests.bench.rest"),
    Criterion("-", "growth of memory while services come and go", "", read_slope),
)
