"""The result of a query to a Prometheus server."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from conch.api import duration_seconds
from conch.api.analysis import Gate, Prometheus, named
from conch.decide.gates.metric import Measurement, Metric, NoMeasurement
from conch.decide.gates.numbers import compare_max, compare_min
from conch.observe.measured import Measured, PrometheusQuery

_PLACE: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "'": r"\'", "\n": r"\n"})


class PrometheusMetric(Metric[Prometheus]):
    """Passes between a minimum and a maximum, of which one may be absent."""

    @property
    def bound(self) -> str:
        """The minimum, the maximum, or both."""
        least = f"at least {self.spec.min}" if self.spec.min is not None else ""
        most = f"at most {self.spec.max}" if self.spec.max is not None else ""
        return " and ".join(part for part in (least, most) if part)

    @property
    def pending(self) -> str:
        """The message while there is no result."""
        return "Waits for an answer of Prometheus."

    def measure(self, measured: Measured, start: float, now: float) -> Measurement | NoMeasurement:
        """Return the last result of the query, if it is newer than `start`."""
        del now  # a result has the time of its request
        answer = measured.answers.get(self.gate.name or self.spec.gate_name)
        if answer is None or answer.time <= start:
            return NoMeasurement(self.pending)
        if answer.value is None:
            return NoMeasurement(f"{answer.error[:1].upper()}{answer.error[1:].rstrip('.')}.", is_error=True)
        low = -math.inf if self.spec.min is None else float(self.spec.min)
        high = math.inf if self.spec.max is None else float(self.spec.max)
        value = f"{answer.value:.6g}"
        passed = low <= answer.value <= high
        if passed:
            bound = f"is within the bounds: {self.bound}"
        elif answer.value < low:
            bound = compare_min(str(self.spec.min), passed=False)
        else:
            bound = compare_max(str(self.spec.max), passed=False)
        return Measurement(passed=passed, value=value, message=f"Query result {value} {bound}")


def build_queries(gates: Iterable[Gate], names: Mapping[str, str]) -> dict[str, PrometheusQuery]:
    """Return the queries of the gates, by gate name.

    Args:
        gates: the gates of the rollout.
        names: the values of {{service}}, {{namespace}}, {{revision}} and {{stable}}.
    """
    return {
        name: PrometheusQuery(
            spec.server, fill(spec.query, names), duration_seconds(spec.timeout), gate.interval_seconds
        )
        for gate in named(gates)
        if (name := gate.name) is not None and (spec := gate.prometheus) is not None
    }


def fill(query: str, names: Mapping[str, str]) -> str:
    r"""Return a query with its placeholders replaced by names, escaped for a PromQL string.

    >>> fill('up{job="{{service}}"}', {"service": 'a"b'})
    'up{job="a\\"b"}'
    """

    def replace(found: re.Match[str]) -> str:
        value = names.get(found[1])
        return found[0] if value is None else value.translate(_ESCAPES)

    return _PLACE.sub(replace, query)
