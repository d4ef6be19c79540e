"""The model is changed under load, and no user notices. Then a pod comes, and gets its share."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from conch.api.kinds import CONFIG_MAP, CONTROLLER_REVISION, DEPLOYMENT, POD, SERVICE
from conch_contract import names
from tests.support import clients
from tests.support.doubling import NUMBERS, apply_behind_gateway, build_predictor, build_request, host_of
from tests.support.examples import MODELS
from tests.support.gateways import Gateway
from tests.support.kube import Kube
from tests.support.metrics import answered
from tests.support.place import Place
from tests.support.service import Service
from tests.support.store import Store
from tests.support.traffic import Mix, Traffic
from tests.support.wait import until

LOAD_SECONDS = 60
STREAM_SECONDS = 60
LEAST_SENT = 5000  # requests, all clients together: on a quiet machine those of 40 s


def test_a_change_of_the_model_fails_no_request(
    place: Place, serve: Callable[..., Service], figure: Callable[[str], None]
) -> None:
    service = serve("double", **build_predictor(2), minReplicas=2)
    old = service.until_ready()["stable"]
    with (
        place.reach(service.namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Traffic(http, grpc, build_request(2, 3)) as traffic,
    ):
        began = time.monotonic()
        until(lambda: time.monotonic() - began > LOAD_SECONDS / 6, "the load is steady")
        service.patch({"predictor": build_predictor(3)})
        changed = time.monotonic()
        new = service.settle()["stable"]
        figure(f"the new revision served alone {time.monotonic() - changed:.1f} s after the change")
        until(lambda: _drained(service, old), "the old pods are gone")
        figure(f"the last old pod was gone {time.monotonic() - changed:.1f} s after the change")
        until(lambda: time.monotonic() - began > LOAD_SECONDS and traffic.sent > LEAST_SENT, "the load has lasted")
        answer = clients.infer_grpc(grpc, "double", {"x": NUMBERS})["y"]
    figure(str(traffic))
    assert answer.tolist() == (3 * NUMBERS).tolist()
    assert new != old
    assert not traffic.tallies["grpc"].failures, traffic
    assert not traffic.tallies["fresh"].failures, traffic
    for kind in (DEPLOYMENT, CONFIG_MAP):
        assert [o["metadata"]["name"] for o in service.children(kind)] == [new]
    assert {o["metadata"]["name"] for o in service.children(SERVICE)} == {new, "double"}
    assert {o["metadata"]["name"] for o in service.children(CONTROLLER_REVISION)} == {old, new}
    service.until_event("Promoted", old)
    service.patch({"rollout": {"historyLimit": 0}})
    until(lambda: len(service.children(CONTROLLER_REVISION)) == 1, "the history is forgotten")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_requests_of_almost_a_minute_outlive_a_change(
    place: Place, serve: Callable[..., Service], figure: Callable[[str], None]
) -> None:
    """Triton's own exit timeout and the connection's grace are 30 s without `longestRequest`."""
    slow = build_predictor(2)
    slow["pod"]["env"].append({"name": "SLEEPS", "value": "50"})
    service = serve("double", **slow, longestRequest="1m", triton={"instanceGroups": [{"count": 2}]})
    old = service.until_ready()["stable"]
    with place.reach(service.namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc]:
        with ThreadPoolExecutor() as pool:
            began = time.monotonic()
            calls = ((clients.infer_http, http), (clients.infer_grpc, grpc))
            futures = [pool.submit(call, at, "double", {"x": NUMBERS}, seconds=80) for call, at in calls]
            service.patch({"predictor": build_predictor(3)})
            new = service.settle()["stable"]
            answers = [future.result()["y"].tolist() for future in futures]
        figure(f"both were answered {time.monotonic() - began:.0f} s after they were sent")
        assert answers == [(2 * NUMBERS).tolist()] * 2
        assert new != old
        until(lambda: _drained(service, old), "the old pod is gone")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_stream_of_a_minute_is_answered_to_its_end(
    place: Place, streaming: Service, gateway: Gateway, figure: Callable[[str], None]
) -> None:
    """Its connection is 15 times as old as one that Triton closes with GOAWAY."""
    ticks = {"count": np.array([STREAM_SECONDS], dtype=np.int32)}
    with place.reach(streaming.namespace, streaming.name, names.GRPC_PORT) as [direct], ThreadPoolExecutor() as pool:
        ways = {"the Service": (direct, ""), "the gateway": (gateway.address, host_of(streaming))}
        began = time.monotonic()
        streams = {
            way: pool.submit(clients.infer_stream, address, "double", ticks, host=host, seconds=100)
            for way, (address, host) in ways.items()
        }
        for way, stream in streams.items():
            numbers = [int(answer["tick"][0]) for answer in stream.result()]
            figure(f"{len(numbers)} answers over {way}, the last {time.monotonic() - began:.0f} s after the request")
            assert numbers == list(range(STREAM_SECONDS)), way


@pytest.fixture
def streaming(kube: Kube, namespace: str, gateway: Gateway, bucket: Store) -> Service:
    """A service that answers a request once a second, behind the gateway."""
    uri = "s3://models/ticks"
    bucket.upload(uri, {path.name: path for path in (MODELS / "ticks").iterdir() if path.is_file()})
    model = {"storageUri": uri, "modelFormat": {"name": "python"}, "storage": {"secretRef": {"name": "s3"}}}
    service = apply_behind_gateway(kube, namespace, gateway, {"model": {"name": "double", **model}})
    service.until_ready()
    return service


def _drained(service: Service, revision: str) -> bool:
    """Whether no pod of a revision is left, going ones included."""
    selector = f"{names.LABEL_SERVICE}={service.name},{names.LABEL_REVISION}={revision}"
    return not service.kube.list(POD, service.namespace, selector)


def test_a_pod_that_comes_later_gets_its_share_of_long_lived_channels(
    place: Place, serve: Callable[..., Service], figure: Callable[[str], None]
) -> None:
    service = serve("double", **build_predictor(2))
    service.until_ready()
    with (
        place.reach(service.namespace, service.name, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Traffic(http, grpc, build_request(2, 3), Mix(grpc=10, fresh=0, kept=0, rate=6)) as traffic,
    ):
        [first] = service.ready_pods()
        until(lambda: answered(first, "double") > 100, "the first pod answers all")
        service.patch({"predictor": {"minReplicas": 2}})
        pods = until(lambda: p if len(p := service.ready_pods()) == 2 else None, "two pods are ready")
        began = time.monotonic()
        # Channels live four seconds, then choose anew: what came before does not count.
        until(lambda: time.monotonic() - began > 6, "every channel has chosen anew")
        before = [answered(pod, "double") for pod in pods]
        until(lambda: time.monotonic() - began > 26, "five lives of a channel")
        counts = [answered(pod, "double") - start for pod, start in zip(pods, before, strict=True)]
    figure(f"requests by pod, the first one and the one that came: {counts}\n{traffic}")
    assert not traffic.tallies["grpc"].failures, traffic
    share = counts[1] / sum(counts)
    # 10 channels choose 5 times between two pods: sigma is 0.07; they last 4 s each.
    assert 0.25 < share < 0.75, counts
