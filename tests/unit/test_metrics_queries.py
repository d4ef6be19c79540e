"""Requests to the metrics API: selectors, paths, users, and its certificate."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from conch.api.label_selector import parse_selector
from conch.api.metrics import TritonMetric
from conch.metrics.access import FrontProxy, User
from conch.metrics.answers import Value, build_resources, build_values
from conch.metrics.certificate import build_bundle, issue
from conch.metrics.query import PODS, parse_query
from conch.metrics.registration import check_target
from conch.metrics.settings import MetricsSettings
from conch.settings import SettingsError

LABELS = {"app": "magika", "conch.dev/revision": "magika-1a2b", "tier": "gold"}
NOW = datetime(2026, 11, 21, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("selector", "selects"),
    [
        ("", True),
        ("app=magika", True),
        ("app==magika,tier=gold", True),
        ("app=magika,tier=tin", False),
        ("conch.dev/revision=magika-1a2b", True),
        ("tier!=gold", False),
        ("absent!=x", True),
        ("tier in (gold, silver)", True),
        ("tier notin (gold,silver)", False),
        ("absent notin (x)", True),
        ("tier", True),
        ("!tier", False),
        ("!absent,app = magika", True),
        ("absent=", False),
    ],
)
def test_selectors_select_as_the_api_server_does(selector: str, selects: bool) -> None:
    assert parse_selector(selector)(LABELS) is selects


@pytest.mark.parametrize("selector", ["=x", "app=magika,", "app in magika", "app in (a b)", "a b", "app=!x", ",a"])
def test_an_invalid_selector_is_refused(selector: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        parse_selector(selector)


def test_a_request_is_authorized_by_the_attributes_of_its_path() -> None:
    """The API server authorizes `pods/METRIC` before it passes a request on; so does the metrics API."""
    query = parse_query("namespaces/ml/pods/*/triton_pending_requests")
    assert query is not None
    assert query.attributes == {
        "group": "custom.metrics.k8s.io",
        "version": "v1beta2",
        "verb": "get",
        "namespace": "ml",
        "resource": "pods",
        "subresource": "triton_pending_requests",
        "name": "*",
    }
    whole = parse_query("namespaces/ml/metrics/triton_pending_requests")
    assert whole is not None
    assert whole.attributes["resource"] == "metrics"
    assert whole.attributes["name"] == "triton_pending_requests"
    assert parse_query("namespaces/ml/services/a/b") is None
    assert parse_query("pods/a/b") is None


def test_each_metric_is_listed_for_each_kind_of_object() -> None:
    listed = {resource["name"]: resource["namespaced"] for resource in build_resources()["resources"]}
    for metric in TritonMetric:
        assert listed[f"pods/{metric}"]
        assert listed[f"inferenceservices.conch.dev/{metric}"]
        assert not listed[f"namespaces/{metric}"]


def test_an_answer_names_object_metric_moment_and_window() -> None:
    answer = build_values(PODS, "ml", TritonMetric.PENDING_REQUESTS, [Value("m-1", 0.25, 14.6)], 0.0)
    assert answer["items"] == [
        {
            "describedObject": {"kind": "Pod", "namespace": "ml", "name": "m-1", "apiVersion": "v1"},
            "metric": {"name": "triton_pending_requests", "selector": None},
            "timestamp": "1970-01-01T00:00:00Z",
            "windowSeconds": 15,
            "value": "250m",
        }
    ]


PROXY = FrontProxy.parse(
    {
        "requestheader-client-ca-file": "PEM",
        "requestheader-allowed-names": json.dumps(["front-proxy-client"]),
        "requestheader-username-headers": json.dumps(["X-Remote-User"]),
        "requestheader-group-headers": json.dumps(["X-Remote-Group"]),
        "requestheader-extra-headers-prefix": json.dumps(["X-Remote-Extra-"]),
    }
)
HEADERS = {"x-remote-user": ["ann"], "x-remote-group": ["ml", "ops"], "x-remote-extra-scopes": ["a"]}


def test_the_front_proxy_alone_names_users() -> None:
    groups = ("ml", "ops", "system:authenticated")
    assert PROXY.user("front-proxy-client", HEADERS) == User("ann", groups, "", (("scopes", ("a",)),))
    anonymous = {"x-remote-user": ["system:anonymous"], "x-remote-group": ["system:unauthenticated"]}
    assert PROXY.user("front-proxy-client", anonymous) == User("system:anonymous", ("system:unauthenticated",))
    assert PROXY.user("another-client", HEADERS) is None, "its certificate is of another name"
    assert PROXY.user(None, HEADERS) is None, "without a certificate the headers prove nothing"
    assert PROXY.user("front-proxy-client", {}) is None


def test_a_cluster_without_aggregation_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="requestheader-client-ca-file"):
        FrontProxy.parse({})


def test_a_client_with_the_bundle_accepts_the_certificate_only_for_its_name() -> None:
    now = datetime.now(UTC)
    certificate = issue("m.ns.svc", now, DAY)
    assert certificate.expiry == (now + DAY).replace(microsecond=0)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    certificate.serve(server)
    client.load_verify_locations(cadata=certificate.pem.decode())
    assert _complete_handshake(server, client, "m.ns.svc")
    with pytest.raises(ssl.SSLCertVerificationError):
        _complete_handshake(server, client, "other.ns.svc")
    issue("m.ns.svc", now, DAY).serve(server)  # another one of the same name
    with pytest.raises(ssl.SSLCertVerificationError):
        _complete_handshake(server, client, "m.ns.svc")


def _complete_handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bool:
    """Return whether two TLS ends complete a handshake over memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there, server_hostname=name), server.wrap_bio(there, back, server_side=True)]
    done = [False, False]
    for _ in range(10):
        for index, end in enumerate(ends):
            if not done[index]:
                try:
                    end.do_handshake()
                    done[index] = True
                except ssl.SSLWantReadError:
                    pass
    return all(done)


def test_a_bundle_keeps_the_certificates_that_other_replicas_need() -> None:
    old, other, ours = (issue("m.ns.svc", NOW + shift, DAY) for shift in (-2 * DAY, -DAY / 2, timedelta()))
    found = build_bundle(old.pem + other.pem, [ours], NOW)
    assert old.pem not in found, "it has expired"
    assert found == other.pem + ours.pem
    assert build_bundle(found, [ours], NOW) == found
    assert build_bundle(b"no certificate", [ours], NOW) == ours.pem


def test_a_bundle_does_not_grow_for_ever() -> None:
    known = b""
    for minute in range(20):
        known = build_bundle(known, [issue("m.ns.svc", NOW + timedelta(minutes=minute), DAY)], NOW)
    assert known.count(b"BEGIN CERTIFICATE") == 8


def test_an_api_service_of_another_adapter_is_not_changed() -> None:
    theirs = {"spec": {"service": {"namespace": "monitoring", "name": "prometheus-adapter"}}}
    assert check_target(theirs, "monitoring", "prometheus-adapter") is None
    message = check_target(theirs, "conch-system", "conch-metrics-api")
    assert message is not None
    assert "names monitoring/prometheus-adapter" in message
    assert "autoscaling.metricsApi" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONCH_WINDOW", "15"),
        ("CONCH_CERTIFICATE_LIFE", "0s"),
        ("CONCH_API_PORT", "https"),
        ("CONCH_LOG_LEVEL", "loud"),
    ],
)
def test_an_invalid_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        MetricsSettings.read({name: value})
