"""The features of gateways, as their classes list them.

An unsupported one is reported, and not used where requests would fail.

Source: gateway-api.sigs.k8s.io, GEP-2162 (supportedFeatures).
"""

from collections.abc import Mapping
from typing import Any, Final

from conch.api import Traffic
from conch.api.kinds import BACKEND_TRAFFIC_POLICY, HTTP_ROUTE, Ref
from conch.api.numbers import percent
from conch.api.reasons import Reason
from conch.api.text import clean
from conch.observe import Finding, ObservedService
from conch.observe.gateways import GatewayKey, SeenGateways, unsupported
from conch.traffic.policy import policy_name

_TIMEOUT: Final = "HTTPRouteRequestTimeout"
_MIRROR: Final = "HTTPRouteRequestMirror"
_PERCENTAGE: Final = "HTTPRouteRequestPercentageMirror"
_ENVOY_GATEWAY: Final = "gateway.envoyproxy.io/"  # prefix of its controllerName by default
_PATH: Final = 120  # bytes of a path of a foreign route in a sentence


def missing(gateways: SeenGateways | None) -> Finding | None:
    """Return the finding for a Gateway of the service that does not exist, or whose class does not.

    >>> from conch.observe.gateways import GatewayKey, SeenGateway
    >>> key = GatewayKey("infra", "public")
    >>> missing({key: SeenGateway()}).reason, missing({key: SeenGateway(True, "envoy")}).reason
    ('GatewayMissing', 'GatewayClassMissing')
    >>> missing({key: SeenGateway(True, "envoy", True)}), missing(None)
    (None, None)
    """
    for key, seen in (gateways or {}).items():
        if not seen.present:
            return Finding(
                Reason.GATEWAY_MISSING,
                f"traffic.gateways names Gateway {key}, which does not exist; create it, or name another",
            )
        if not seen.class_present:
            return Finding(
                Reason.GATEWAY_CLASS_MISSING,
                f"traffic.gateways names Gateway {key}, whose GatewayClass {seen.class_name} does not exist; install"
                " the controller that brings the class, or name another Gateway",
            )
    return None


def find_hostname_conflict(observed: ObservedService) -> Finding | None:
    """Return the finding for a hostname whose requests go to another service, or some of them to a foreign route."""
    if observed.hostname_conflict is not None:
        other, claim = observed.hostname_conflict
        return Finding(
            Reason.HOSTNAME_TAKEN,
            f"InferenceService {other} has an older route for the hostname {claim.hostname} at Gateway {claim.gateway},"
            " which gets all requests; write another name in traffic.hostnames, or remove it there",
        )
    conflict = observed.route_conflict
    if conflict is None:
        return None
    path = f"{'path' if conflict.match.is_exact else 'path prefix'} {clean(conflict.match.path, _PATH)}"
    return Finding(
        Reason.HOSTNAME_TAKEN,
        f"HTTPRoute {conflict.route} gets requests of this service for the hostname {conflict.hostname} at Gateway"
        f" {conflict.gateway}: those with the {path}, because {conflict.precedence.value}; write another name in"
        " traffic.hostnames, or remove the match from that route",
    )


def no_timeout(observed: ObservedService, traffic: Traffic) -> Finding | None:
    """Return the finding for a timeout that a gateway does not enforce. The route has it all the same."""
    found = _lacking(observed, _TIMEOUT) if traffic.timeout else None
    if found is None:
        return None
    return Finding(
        Reason.TIMEOUT_NOT_SUPPORTED,
        f"traffic.timeout is {traffic.timeout}, and {found}; remove the timeout, or name a Gateway of another class in"
        " traffic.gateways",
    )


def has_envoy_gateway(observed: ObservedService) -> bool:
    """Whether a Gateway of the service is of Envoy Gateway; without a known controller: whether a policy exists."""
    controllers = _controllers(observed)
    if not controllers:
        return _policy(observed) is not None
    return any(controller.startswith(_ENVOY_GATEWAY) for controller in controllers.values())


def _controllers(observed: ObservedService) -> dict[GatewayKey, str]:
    """Return the known controllerNames of the service's Gateways.

    Source: the GatewayClasses; without a watch on Gateways, the parents in the route's status.
    """
    if observed.gateways is not None:
        return {key: seen.controller for key, seen in observed.gateways.items() if seen.controller}
    traffic, own = observed.service.spec.traffic, observed.key.namespace
    named = {GatewayKey(each.namespace or own, each.name) for each in (traffic.gateways if traffic else ())}
    route = observed.children.get(Ref(HTTP_ROUTE, observed.key.name))
    answers = route["status"]["parents"] if route else ()
    found = {
        GatewayKey(answer["parentRef"].get("namespace") or own, answer["parentRef"].get("name", "")): answer
        for answer in answers
    }
    return {key: answer["controllerName"] for key, answer in found.items() if key in named}


def find_unsupported_hash(observed: ObservedService, traffic: Traffic) -> Finding | None:
    """Return the finding for a Gateway that cannot enforce traffic.consistentHash."""
    for key, controller in _controllers(observed).items() if traffic.consistent_hash else ():
        if not controller.startswith(_ENVOY_GATEWAY):
            return Finding(
                Reason.CONSISTENT_HASH_NOT_SUPPORTED,
                f"traffic.consistentHash is set, and Gateway {key} is not of Envoy Gateway: its controller is"
                f" {clean(controller, _PATH)}; remove consistentHash, or name only Gateways of Envoy Gateway in"
                " traffic.gateways",
            )
    return None


def find_policy_refusal(observed: ObservedService, traffic: Traffic) -> Finding | None:
    """Return the finding for traffic.consistentHash without effect, because Envoy Gateway rejects the policy."""
    for condition in _accepted_conditions(observed) if traffic.consistent_hash else ():
        if condition["status"] == "False":
            return Finding(
                Reason.POLICY_REFUSED,
                f"Envoy Gateway refuses BackendTrafficPolicy {policy_name(observed.key.name)}, by which"
                f" traffic.consistentHash is enforced: {condition['reason']}: {condition['message']}",
            )
    return None


def has_session_affinity(observed: ObservedService) -> bool:
    """Whether all Gateways have accepted that requests with the same header go to the same pod."""
    traffic = observed.service.spec.traffic
    if traffic is None or traffic.consistent_hash is None or find_unsupported_hash(observed, traffic) is not None:
        return False
    conditions = _accepted_conditions(observed)
    return bool(conditions) and all(condition["status"] == "True" for condition in conditions)


def _policy(observed: ObservedService) -> Mapping[str, Any] | None:
    return observed.children.get(Ref(BACKEND_TRAFFIC_POLICY, policy_name(observed.key.name)))


def _accepted_conditions(observed: ObservedService) -> list[Mapping[str, Any]]:
    """Return Envoy Gateway's conditions Accepted of the policy's present generation."""
    policy = _policy(observed)
    if policy is None:
        return []
    return [
        condition
        for ancestor in policy["status"]["ancestors"]
        for condition in ancestor["conditions"]
        if ancestor["controllerName"].startswith(_ENVOY_GATEWAY)
        and condition["type"] == "Accepted"
        and condition["observedGeneration"] == policy["metadata"].get("generation")
    ]


def no_mirror(observed: ObservedService) -> Finding | None:
    """Return why the route has no mirror: a gateway that cannot make copies may fail every request of the rule."""
    variant = observed.service.variant_spec
    if variant is None or not variant.mirror:
        return None
    found = _lacking(observed, _MIRROR)
    if found is not None:
        remedy = "remove the variant's mirror, or name a Gateway of another class in traffic.gateways"
    else:
        found = _lacking(observed, _PERCENTAGE) if percent(variant.mirror) < 1 else None
        remedy = "set mirror to 100%, or name a Gateway of another class in traffic.gateways"
    if found is None:
        return None
    return Finding(
        Reason.MIRROR_NOT_SUPPORTED, f"The mirror is {variant.mirror}, and {found}, so nothing is copied; {remedy}"
    )


def mirrors_for_sure(observed: ObservedService) -> bool:
    """Whether the classes of all gateways list their features; without that, an accepted mirror proves nothing."""
    return all(seen.features is not None for seen in (observed.gateways or {}).values()) and bool(observed.gateways)


def _lacking(observed: ObservedService, feature: str) -> str | None:
    """Return which gateway is known not to have a feature."""
    gateways = observed.gateways or {}
    key = unsupported(gateways, feature)
    if key is None:
        return None
    return (
        f"Gateway {key} does not support it: GatewayClass {gateways[key].class_name} does not list {feature} among its"
        " supportedFeatures"
    )
