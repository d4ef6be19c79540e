"""The chart's values for KEDA: the settings and the permissions of the operator, and its queries."""

from __future__ import annotations

import pytest

from conch.api.kinds import SCALED_OBJECT
from conch.api.metrics import TritonMetric
from conch.api.quantity import to_decimal
from conch.settings import Settings, SettingsError
from conch.triton.promql import build_promql
from conch.write import rbac
from tests.chart.test_chart import environment, granted, of_kind, one, render

KEDA = {"autoscaling": {"metricsApi": "keda", "prometheus": "http://prometheus:9090/"}}


def test_with_keda_the_operator_has_its_settings_and_may_write_scaled_objects() -> None:
    manifests = render(KEDA)
    settings = Settings.read(environment(manifests))
    assert (settings.metrics_api, settings.prometheus) == ("keda", "http://prometheus:9090")
    verbs = granted(one(manifests, "ClusterRole", "conch-operator"))
    assert verbs[SCALED_OBJECT.plural] == {"list", "watch", "get", "create", "patch", "delete"}
    [role] = [r for r in of_kind(render(KEDA | {"watchNamespaces": ["one"]}), "Role") if "one" in str(r["metadata"])]
    assert SCALED_OBJECT.plural in granted(role)
    assert all(grant.why for grant in rbac.KEDA)


def test_the_operator_without_keda_may_not_write_scaled_objects() -> None:
    manifests = render()
    settings = Settings.read(environment(manifests))
    assert (settings.metrics_api, settings.prometheus) == ("builtin", "")
    assert SCALED_OBJECT.plural not in granted(one(manifests, "ClusterRole", "conch-operator"))


def test_an_address_that_is_no_url_is_refused() -> None:
    with pytest.raises(RuntimeError, match="/autoscaling/prometheus"):
        render({"autoscaling": {"prometheus": "prometheus:9090"}})
    with pytest.raises(SettingsError, match="CONCH_PROMETHEUS is 'prometheus:9090'; set it to a URL such as http://"):
        Settings.read({"CONCH_SERVING_IMAGE": "conch/serving:1", "CONCH_PROMETHEUS": "prometheus:9090"})


@pytest.mark.parametrize(
    ("metric", "query"),
    [
        (
            TritonMetric.QUEUE_TO_COMPUTE_RATIO,
            (
                'sum by (pod) (rate(nv_inference_queue_duration_us{job="a"}[2m])) / clamp_min('
                'sum by (pod) (rate(nv_inference_compute_input_duration_us{job="a"}[2m]))'
                ' + sum by (pod) (rate(nv_inference_compute_infer_duration_us{job="a"}[2m]))'
                ' + sum by (pod) (rate(nv_inference_compute_output_duration_us{job="a"}[2m])), 0.001)'
            ),
        ),
        (TritonMetric.PENDING_REQUESTS, 'sum by (pod) (nv_inference_pending_request_count{job="a"})'),
        (
            TritonMetric.REQUESTS_PER_SECOND,
            (
                'sum by (pod) (rate(nv_inference_request_success{job="a",model="m"}[2m]))'
                ' + sum by (pod) (rate(nv_inference_request_failure{job="a",model="m"}[2m]))'
            ),
        ),
        (
            TritonMetric.INFERENCE_LATENCY,
            (
                'sum by (pod) (rate(nv_inference_request_duration_us{job="a",model="m"}[2m]))'
                ' / clamp_min(sum by (pod) (rate(nv_inference_request_success{job="a",model="m"}[2m])), 0.001) / 1e6'
            ),
        ),
        (TritonMetric.GPU_UTILIZATION, 'avg by (pod) (nv_gpu_utilization{job="a"})'),
    ],
)
def test_each_metric_is_a_query(metric: TritonMetric, query: str) -> None:
    assert build_promql(metric, 'job="a"', "2m", model="m", by="pod") == query


def test_a_quantity_is_a_plain_number_to_others() -> None:
    quantities = ["333333333n", "1u", "50m", "0.5", "4", "1k", "2M", "1Ki", "1e3", "100"]
    numbers = ["0.333333333", "0.000001", "0.05", "0.5", "4", "1000", "2000000", "1024", "1000", "100"]
    assert [to_decimal(quantity) for quantity in quantities] == numbers
    with pytest.raises(ValueError, match="'many' is not a quantity"):
        to_decimal("many")
