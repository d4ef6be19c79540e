"""Two installations of the chart that share the services by a label."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from conch.api.kinds import INFERENCE_SERVICE
from conch_contract import names
from tests.support import clients, examples, filetypes
from tests.support.place import CHART, OPERATOR, RELEASE, SYSTEM, Place
from tests.support.service import Service
from tests.support.wait import TIMEOUT, until

pytestmark = pytest.mark.alone  # the whole cluster's Conch gets other values

SECOND = "conch-b"
VALUES = examples.FOLDER / "administrator" / "second-installation.yaml"


@pytest.fixture
def two(place: Place) -> Iterator[None]:
    """Install a second release, as the documentation has it."""
    others = f"signaturePolicies.otherOperators={{{SYSTEM}/{SECOND}-operator}}"
    shared = ("--set=watchLabelSelector=!example.com/shard", f"--set={others}")
    try:
        place.helm("upgrade", RELEASE, str(CHART), f"--namespace={SYSTEM}", "--reset-then-reuse-values", *shared)
        place.helm("upgrade", "--install", SECOND, str(CHART), f"--namespace={SYSTEM}", f"--values={VALUES}")
        for deployment in (OPERATOR, f"{SECOND}-operator"):
            place.kube.run("rollout", "status", f"deployment/{deployment}", f"--namespace={SYSTEM}", TIMEOUT)
        yield
    finally:
        place.helm("uninstall", SECOND, f"--namespace={SYSTEM}", "--ignore-not-found", "--wait")
        place.install()


def test_a_label_hands_a_service_over_while_it_serves(
    place: Place, namespace: str, serve: Callable[..., Service], two: None
) -> None:
    del two
    service = serve("magika", minReplicas=1, maxReplicas=3, autoscaling={"queueToComputeRatio": 1})
    service.until_ready()
    assert service.status["installation"] == f"{SYSTEM}/{OPERATOR}"
    [pod] = [each["metadata"]["uid"] for each in service.pods()]

    def label(value: str | None) -> None:
        labels = {"metadata": {"labels": {"example.com/shard": value}}}
        place.kube.patch(INFERENCE_SERVICE, namespace, service.name, labels)

    label("b")
    second = f"{SYSTEM}/{SECOND}-operator"
    until(lambda: service.status["installation"] == second, "the second installation serves it")
    service.patch({"predictor": {"minReplicas": 2}})
    until(lambda: len(service.ready_pods()) == 2, "it acts on a change")
    assert pod in [each["metadata"]["uid"] for each in service.pods()]
    service.until_condition("Autoscaling", "True")
    label(None)
    until(lambda: service.status["installation"] == f"{SYSTEM}/{OPERATOR}", "the first one serves it again")
    service.until_ready()
    inputs = {filetypes.INPUT: filetypes.features(filetypes.samples()["dot.png"])}
    with place.reach(namespace, service.name, names.HTTP_PORT) as [http]:
        assert filetypes.label(clients.infer_http(http, "magika", inputs)[filetypes.OUTPUT])[0] == "png"
