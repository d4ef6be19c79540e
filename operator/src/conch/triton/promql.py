"""What autoscalers are told, as PromQL over Triton's own series: for KEDA's triggers, and prometheus-adapter's rules.

One place, so that a target means the same whoever answers. Source of names and units: the page "Metrics" of
Triton's user guide; durations are microseconds. Pure text: who asks whom stands elsewhere.
"""

from typing import Final

from conch.api.metrics import TritonMetric
from conch.triton.metrics import COMPUTE_US, DURATION_US, FAILURE, GPU_UTILIZATION, PENDING, QUEUE_US, SUCCESS

WINDOW: Final = "1m"  # rates need two scrapes, and most Prometheus servers read every 15 or 30 seconds
# Nothing over nothing is nothing: a service at rest asks for no pod, and NaN would say nothing at all.
_LEAST: Final = "0.001"

PER_POD: Final = frozenset({TritonMetric.PENDING_REQUESTS, TritonMetric.REQUESTS_PER_SECOND})
"""What adds up over pods, and is wanted of each of them; the rest is the same for one pod as for all."""


def promql(metric: TritonMetric, matchers: str, window: str = WINDOW, model: str = "", by: str = "") -> str:
    """Return the query of a metric, over all pods that the matchers select.

    Args:
        metric: what is asked.
        matchers: label matchers without braces, such as `namespace="demo",pod=~"magika-.*"`.
        window: of rates, as PromQL spells a time.
        model: the model that clients ask for, where requests of the parts of an ensemble shall not count.
        by: labels by which the answer is grouped, by commas; none: one number.

    >>> promql(TritonMetric.PENDING_REQUESTS, 'pod="a"', by="pod")
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
