"""Variants beside the predictor, through real gateways and under load: by header, by weight, and shadows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from conch.api.kinds import CONFIG_MAP, CONTROLLER_REVISION, DEPLOYMENT, DISRUPTION_BUDGET, HTTP_ROUTE, POD, SERVICE
from conch_contract import names
from tests.support.doubling import (
    LIGHT,
    PROTOCOLS,
    SHORT,
    apply_behind_gateway,
    build_predictor,
    build_request,
    count_factors,
    environment,
    host_of,
    near,
    wait_for_shares,
)
from tests.support.gateways import Gateway
from tests.support.kube import Kube, Object
from tests.support.metrics import failed, waiting
from tests.support.service import Service
from tests.support.traffic import SECONDS, Mix, Traffic
from tests.support.wait import until

TO_BETA: Final = {"x-variant": "beta"}
MATCH: Final = [{"headers": [{"name": name, "value": value} for name, value in TO_BETA.items()]}]
OTHER: Final = {"storageUri": build_predictor(3)["model"]["storageUri"]}
CHANGES: Final = 50
MANY: Final = Mix(grpc=4, fresh=2, kept=4, rate=20)
OBJECTS: Final = (DEPLOYMENT, POD, SERVICE, CONFIG_MAP, DISRUPTION_BUDGET, CONTROLLER_REVISION)


def variant(name: str, factor: int, **fields: Any) -> dict[str, Any]:
    """Return a variant that multiplies by another factor than the predictor."""
    return {"name": name, "predictor": {"model": OTHER, "pod": environment(FACTOR=factor)}, **fields}


@pytest.mark.parametrize("gateway", ["envoy", "traefik"], indirect=True)
def test_a_header_leads_to_the_variant(
    kube: Kube, namespace: str, gateway: Gateway, figure: Callable[[str], None]
) -> None:
    service = apply_behind_gateway(kube, namespace, gateway, SHORT)
    service.until_ready()
    stable = service.status["stable"]
    wait_for_shares(gateway, service, {2: 100})
    address, host = gateway.address, host_of(service)
    with (
        Traffic(address, address, build_request(2), LIGHT, host) as without,
        Traffic(address, address, build_request(2, 3, 5), LIGHT, host, headers=TO_BETA) as by_header,
    ):
        service.patch({"variants": [variant("beta", 3, match=MATCH)]})
        service.until_ready()
        wait_for_shares(gateway, service, {3: 100}, TO_BETA)
        for over in PROTOCOLS:
            assert count_factors(gateway, service, 300, TO_BETA, over=over) == {3: 300}
            assert count_factors(gateway, service, 300, over=over) == {2: 300}
        service.patch({"variants": [variant("beta", 5, match=MATCH)]})
        service.until_ready()
        wait_for_shares(gateway, service, {5: 100}, TO_BETA)
        assert count_factors(gateway, service, 100, TO_BETA, over="grpc") == {5: 100}
        assert service.status["stable"] == stable
    with (
        Traffic(address, address, build_request(2), LIGHT, host) as without_later,
        Traffic(address, address, build_request(2, 5), LIGHT, host, headers=TO_BETA) as going,
    ):
        service.patch({"variants": None})
        until(lambda: not of_variant(service, "beta"), "nothing is left of the variant")
        wait_for_shares(gateway, service, {2: 100}, TO_BETA)
    figure(f"without the header: {without}\nwith it: {by_header}\nwith it while the variant goes: {going}")
    for traffic in (without, without_later, by_header, going):
        assert not traffic.failed, traffic
    service.until_ready()
    assert "variants" not in service.status


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "way", [{"match": MATCH}, {"weight": 20}, {"mirror": "50%"}], ids=["match", "weight", "mirror"]
)
def test_requests_that_come_to_a_variant_and_leave_it_again_and_again(
    kube: Kube, namespace: str, gateway: Gateway, figure: Callable[[str], None], way: dict[str, Any]
) -> None:
    """The pods stay, so that each change is one of the route alone."""
    service = apply_behind_gateway(kube, namespace, gateway, {}, variants=[variant("beta", 3)])
    service.until_ready()
    wait_for_shares(gateway, service, {2: 100})
    address, host = gateway.address, host_of(service)
    with (
        Traffic(address, address, build_request(2, 3), LIGHT, host) as without,
        Traffic(address, address, build_request(2, 3), MANY, host, headers=TO_BETA) as by_header,
    ):
        for number in range(CHANGES):
            service.patch({"variants": [variant("beta", 3, **way)]})
            service.until_ready()
            service.patch({"variants": [variant("beta", 3)]})
            service.until_ready()
            if number % 2:  # else the next change meets the rules while they go
                until(lambda: len(rules(service)) == 2, "the predictor's rules alone are left")
    figure(f"{CHANGES} times; without the header: {without}\nwith it: {by_header}")
    for traffic in (without, by_header):
        assert not traffic.failed, traffic


def test_shares_of_a_variant_and_of_a_rollout_beside_it(
    kube: Kube, namespace: str, gateway: Gateway, figure: Callable[[str], None]
) -> None:
    beta = variant("beta", 3, weight=20)
    service = apply_behind_gateway(
        kube, namespace, gateway, {}, variants=[beta], rollout={"steps": [{"weight": 50}, {"pause": "Manual"}]}
    )
    service.until_ready()
    wait_for_shares(gateway, service, {3: 20})
    with Traffic(gateway.address, gateway.address, build_request(2, 3, 5), LIGHT, host_of(service)) as traffic:
        shares(gateway, service, {2: 80, 3: 20}, figure)
        service.patch({"predictor": {"pod": environment(FACTOR=5)}})
        until(lambda: (service.status.get("rollout") or {}).get("phase") == "Paused", "the pause at half")
        wait_for_shares(gateway, service, {5: 40})
        shares(gateway, service, {2: 40, 3: 20, 5: 40}, figure)
    figure(str(traffic))
    assert not traffic.failed, traffic
    [status] = service.status["variants"]
    assert "candidate" not in status, "the variant overrides all that has changed in the predictor"


def test_a_shadow_that_fails_and_one_that_is_slow_fail_no_request(
    kube: Kube, namespace: str, gateway: Gateway, figure: Callable[[str], None]
) -> None:
    broken = variant("broken", 3, mirror="50%")
    broken["predictor"]["pod"] = environment(FACTOR=3, FAILS=1.0)
    slow = variant("slow", 3, mirror="5%")
    slow["predictor"]["pod"] = environment(FACTOR=3, SLEEPS=2 * SECONDS)  # who waited for a copy would have failed
    service = apply_behind_gateway(kube, namespace, gateway, {})
    service.until_ready()
    wait_for_shares(gateway, service, {2: 100})
    address, host = gateway.address, host_of(service)
    with Traffic(address, address, build_request(2), LIGHT, host) as coming:
        service.patch({"variants": [broken, slow]})
        service.until_ready()
        [shadow] = pods_of(service, "broken")
        until(lambda: failed(shadow, "double") > 20, "copies arrive")
        until(lambda: arriving(service, "broken"), "the status has Arriving, which Envoy Gateway does not report")
    before, count = failed(shadow, "double"), 400
    assert count_factors(gateway, service, count) == {2: count}
    copies = until(lambda: enough(failed(shadow, "double") - before, count), "half of the requests were copied")
    with Traffic(address, address, build_request(2), LIGHT, host) as going:
        [late] = pods_of(service, "slow")
        until(lambda: waiting(late, "double") > 0, "the slow one gets copies too")
        service.patch({"variants": None})
        until(lambda: len(service.children(DEPLOYMENT)) == 1, "the shadows are gone")
    figure(f"of {count} requests {copies} were copied\nthe shadows come: {coming}\nthey go: {going}")
    for traffic in (coming, going):
        assert not traffic.failed, traffic


@pytest.mark.parametrize("gateway", ["traefik"], indirect=True)
def test_a_gateway_that_cannot_mirror_gets_no_mirror(
    kube: Kube, namespace: str, gateway: Gateway, figure: Callable[[str], None]
) -> None:
    """Traefik takes a route with a mirror, and answers 500 to every request of it."""
    service = apply_behind_gateway(kube, namespace, gateway, {})
    service.until_ready()
    wait_for_shares(gateway, service, {2: 100})
    with Traffic(gateway.address, gateway.address, build_request(2), LIGHT, host_of(service)) as traffic:
        service.patch({"variants": [variant("shadow", 3, mirror="100%")]})
        until(lambda: pods_of(service, "shadow"), "the shadow is ready")
        service.until_condition("TrafficProgrammed", "False", "MirrorNotSupported")
        [route] = service.children(HTTP_ROUTE)
        assert not [rule for rule in route["spec"]["rules"] if "filters" in rule]
        assert count_factors(gateway, service, 200) == {2: 200}
    figure(str(traffic))
    assert not traffic.failed, traffic
    assert service.condition("Serving")["status"] == "True"


def shares(gateway: Gateway, service: Service, wanted: dict[int, int], figure: Callable[[str], None]) -> None:
    """See that a thousand answers are shared out like this, in percent."""
    observed = count_factors(gateway, service, 1000)
    figure(f"desired {wanted}, observed {dict(observed)} of 1000")
    assert set(observed) == set(wanted)
    assert near(observed, wanted), observed


def rules(service: Service) -> list[Object]:
    """The rules of a service's route."""
    [route] = service.children(HTTP_ROUTE)
    found: list[Object] = route["spec"]["rules"]
    return found


def of_variant(service: Service, variant: str) -> list[str]:
    """The objects that a variant still has, pods that are going included."""
    found = [body for kind in OBJECTS for body in service.children(kind)]
    return [
        body["metadata"]["name"] for body in found if body["metadata"]["labels"].get(names.LABEL_VARIANT) == variant
    ]


def arriving(service: Service, name: str) -> bool:
    """Whether the status reports that a shadow's copies arrive."""
    return any(shadow["name"] == name and shadow.get("mirror") == "Arriving" for shadow in service.status["variants"])


def pods_of(service: Service, variant: str) -> list[Object]:
    """The ready pods of a variant."""
    return [pod for pod in service.ready_pods() if pod["metadata"]["labels"].get(names.LABEL_VARIANT) == variant]


def enough(copies: int, count: int) -> int | None:
    """The number of copies, if it is half of the requests within three standard deviations."""
    return copies if abs(copies - count / 2) <= 3 * (count / 4) ** 0.5 else None
