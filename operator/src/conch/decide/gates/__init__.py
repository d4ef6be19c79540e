"""The gates of a rollout: measurements of a candidate and their verdicts. One file for each metric of the spec.

To add a metric: in `conch.api.analysis` a `GateMetric`, its row in `METRICS` and its field of `Gate`; here a
`Metric`, and its row in `registry.METRICS`.
"""

from conch.decide.gates.evaluation import Evaluation, bound_of, evaluate, evaluate_all
from conch.decide.gates.job import JobMetric, UnreadyStable, override
from conch.decide.gates.prometheus import build_queries
from conch.decide.gates.registry import METRICS, list_job_metrics

__all__ = [
    "METRICS",
    "Evaluation",
    "JobMetric",
    "UnreadyStable",
    "bound_of",
    "build_queries",
    "evaluate",
    "evaluate_all",
    "list_job_metrics",
    "override",
]
