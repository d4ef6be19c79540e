"""Objects as large as the API server stores them: the operator stays within its memory, and the others are served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conch.api.kinds import INFERENCE_SERVICE
from conch_contract import names
from tests.api.operator import Operator, another_namespace, are_ready, condition, isvc
from tests.cluster import Cluster
from tests.support.attacks import owned_by, put_large
from tests.support.kube import Kube
from tests.support.wait import until

MANY = 200
OVER = 20  # of one service: more than Conch keeps of it
MOST_MIB = 256  # half of what the chart allows


def peak_mib(operator: Operator) -> int:
    """Return the most memory that the process has had."""
    assert operator.process is not None
    status = Path(f"/proc/{operator.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM:"))


@pytest.mark.timeout(600)
def test_large_objects_of_one_tenant_cost_the_others_nothing(
    cluster: Cluster, kube: Kube, namespace: str, log: Path, record_property: Callable[[str, object], None]
) -> None:
    def scale(replicas: int) -> None:
        kube.patch(INFERENCE_SERVICE, namespace, "magika", {"spec": {"predictor": {"minReplicas": replicas}}})
        until(are_ready(kube, namespace), f"the other tenant has {replicas} pods")

    with another_namespace(kube, f"{namespace}-large") as place:

        def ready() -> dict[str, str]:
            return condition(kube.get(INFERENCE_SERVICE, place, "magika") or {}, "Ready")

        put_large(kube, place, "magika", MANY)
        with Operator(cluster, log) as operator:
            kube.apply(isvc(), namespace)
            scale(2)
            assert peak_mib(operator) < MOST_MIB
            kube.apply(isvc(), place)
            until(are_ready(kube, place), "the tenant's own service is Ready too", seen=ready)
            operator.stop()

            there = kube.get(INFERENCE_SERVICE, place, "magika") or {}
            put_large(kube, place, "magika", OVER, ownerReferences=[owned_by(there)])
            operator.start()
            until(lambda: ready().get("reason") == "ObjectsTooLarge", "the status has the reason", seen=ready)
            assert "ConfigMap/large-" in ready()["message"]
            scale(3)
            assert peak_mib(operator) < MOST_MIB
            record_property("peak_mib", peak_mib(operator))
            kube.run("delete", "configmaps", f"--selector={names.LABEL_SERVICE}", f"--namespace={place}")
            until(lambda: ready().get("status") == "True", "it is served again", seen=ready)
            assert "Traceback" not in operator.log()
