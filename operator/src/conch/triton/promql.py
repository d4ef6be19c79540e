"""Metrics of autoscalers, as PromQL over Triton's own series: for KEDA's triggers and prometheus-adapter's rules.

They are in one module, so that a target means the same with each metrics API. Source of names and units: the page
"Metrics" of Triton's user guide; durations are microseconds.
"""

from typing import Final

from conch.api.metrics import TritonMetric
from conch.triton.metrics import COMPUTE_US, DURATION_US, FAILURE, GPU_UTILIZATION, PENDING, QUEUE_US, SUCCESS

WINDOW: Final = "1m"  # rates need two scrapes, and most Prometheus servers read every 15 or 30 seconds
# 0 divided by 0 is 0 here: an idle service needs no pod, and NaN is no value for an autoscaler.
_LEAST: Final = "0.001"

PER_POD: Final = frozenset({TritonMetric.PENDING_REQUESTS, TritonMetric.REQUESTS_PER_SECOND})
"""Metrics that add up over pods, with a target for each pod; the others are the same for one pod as for all."""


def build_promql(metric: TritonMetric, matchers: str, window: str = WINDOW, model: str = "", by: str = "") -> str:
    """Return the query of a metric, over all pods that the matchers select.

    Args:
        metric: the metric.
        matchers: label matchers without braces, such as `namespace="demo",pod=~"magika-.*"`.
        window: of rates, as PromQL spells a time.
        model: the model that clients request, where requests of the parts of an ensemble do not count.
        by: labels to group by, separated by commas; empty: one number.

    >>> build_promql(TritonMetric.PENDING_REQUESTS, 'pod="a"', by="pod")
    'sum by (pod) (nv_inference_pending_request_count{pod="a"})'
    """
    sum_ = f"sum by ({by}) " if by else "sum"
    of_all = f"{{{matchers}}}"
    of_model = f'{{{matchers},model="{model}"}}' if model else of_all

    def rate(series: str) -> str:
        return f"{sum_}(rate({series}[{window}]))"

    answered = rate(f"{SUCCESS}{of_model}")
    match metric:
        case TritonMetric.QUEUE_TO_COMPUTE_RATIO:
            computed = " + ".join(rate(f"{series}{of_all}") for series in COMPUTE_US)
            return f"{rate(f'{QUEUE_US}{of_all}')} / clamp_min({computed}, {_LEAST})"
        case TritonMetric.PENDING_REQUESTS:
            return f"{sum_}({PENDING}{of_all})"
        case TritonMetric.REQUESTS_PER_SECOND:
            return f"{answered} + {rate(f'{FAILURE}{of_model}')}"
        case TritonMetric.INFERENCE_LATENCY:
            took = rate(f"{DURATION_US}{of_model}")
            return f"{took} / clamp_min({answered}, {_LEAST}) / 1e6"
        case TritonMetric.GPU_UTILIZATION:
            return f"{sum_.replace('sum', 'avg')}({GPU_UTILIZATION}{of_all})"
