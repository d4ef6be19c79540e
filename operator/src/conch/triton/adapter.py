"""Rules for prometheus-adapter: the metrics of Conch's own metrics API, under the same names.

`python -m conch.triton.adapter` prints them; the chart has them as a file. Their form is that of the adapter's
configuration (kubernetes-sigs/prometheus-adapter, docs/config.md). They need a Prometheus whose series of Triton carry
the labels `namespace` and `pod`, as a PodMonitor gives them.
"""

import sys
from typing import Any, Final

from conch.api.metrics import TritonMetric
from conch.plain_yaml import dump_yaml
from conch.triton.metrics import DURATION_US, GPU_UTILIZATION, PENDING, QUEUE_US, SUCCESS
from conch.triton.promql import build_promql

# The series by which the adapter finds out which pods have a metric.
_KNOWN_BY: Final = {
    TritonMetric.QUEUE_TO_COMPUTE_RATIO: QUEUE_US,
    TritonMetric.PENDING_REQUESTS: PENDING,
    TritonMetric.REQUESTS_PER_SECOND: SUCCESS,
    TritonMetric.INFERENCE_LATENCY: DURATION_US,
    TritonMetric.GPU_UTILIZATION: GPU_UTILIZATION,
}
_HEADER: Final = "# Generated from operator/src/conch/triton/adapter.py by `make generate`. Do not edit.\n"


def build_rules() -> list[dict[str, Any]]:
    """Return one rule for each metric, for pods and for namespaces."""
    return [
        {
            "seriesQuery": f'{_KNOWN_BY[metric]}{{namespace!="",pod!=""}}',
            "resources": {
                "overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}},
            },
            "name": {"as": metric.value},
            "metricsQuery": build_promql(metric, "<<.LabelMatchers>>", by="<<.GroupBy>>"),
        }
        for metric in TritonMetric
    ]


def to_yaml() -> str:
    """Return the adapter's configuration, byte for byte the same at every call."""
    return _HEADER + dump_yaml({"rules": build_rules()})


if __name__ == "__main__":
    sys.stdout.write(to_yaml())
