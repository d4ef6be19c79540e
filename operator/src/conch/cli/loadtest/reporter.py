"""Text of a run for a user: its progress, and its summary."""

from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text as RichText

from conch.cli.loadtest.driver import CLIENT, IN_FLIGHT, PATIENCE
from conch.cli.loadtest.results import Second
from conch.cli.printing import Table, Text

_COLUMNS: Final = ("SECOND", "SCHEDULED", "ANSWERED", "FAILED", "LATE", "P50", "P99", "READY", "DESIRED")
_ROWS: Final = 15
_TERMINAL_SECONDS: Final = 1.0
_PIPE_SECONDS: Final = 5.0
_SLOW_CLIENT: Final = 0.5  # the part of the latency above which this client is the cause
_REMEDIES: Final = {
    IN_FLIGHT: "the service is slower than the rate of requests: it is at its limit, or --concurrency is too low",
    CLIENT: "this machine cannot start that many requests: lower --rate, or use several machines",
}


class Reporter:
    """Prints the progress of a run: the last seconds as a table on a terminal, a line every few seconds elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: deque[Second] = deque(maxlen=_ROWS)
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    @property
    def period(self) -> float:
        """Seconds between two reports."""
        return _TERMINAL_SECONDS if self._live else _PIPE_SECONDS

    def print_line(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(RichText(text), soft_wrap=True)

    def report(self, row: Second, in_flight: int) -> None:
        """Print the results since the last report."""
        if self._live is None:
            self.print_line(format_line(row, self.period, in_flight))
            return
        self._rows.append(row)
        self._live.update(_build_table(self._rows), refresh=True)


def format_line(row: Second, seconds: float, in_flight: int) -> str:
    """Return the results of a period of seconds, as one line."""
    replicas = "" if row.ready is None else f", {row.ready} ready of {row.desired} desired replicas"
    return (
        f"{row.second:>4}s  {row.scheduled} scheduled, {row.answered} answered ({row.answered / seconds:.1f}/s),"
        f" {row.failed} failed, {row.late} late, {in_flight} in flight;"
        f" p50 {format_milliseconds(row.p50)}, p99 {format_milliseconds(row.p99)}{replicas}"
    )


def format_milliseconds(value: float | None) -> str:
    """Return a latency in milliseconds with about three digits.

    >>> [format_milliseconds(value) for value in (None, 0.0, 0.2511, 41.27, 1234.5)]
    ['-', '0ms', '0.251ms', '41.3ms', '1234ms']
    """
    if not value:
        return "-" if value is None else "0ms"
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}ms"


def build_summary_text(value: Mapping[str, Any]) -> Text:
    """Return the text of a summary."""
    latency, behind = value["latencyMilliseconds"], value["clientDelayMilliseconds"]
    text: list[str | Table] = [
        "",
        _format_counts(value),
        f"Latency from the time when a request was due: {_format_percentiles(latency)}",
        f"Of this, the client's own delay: {_format_percentiles(behind)}",
    ]
    if (behind["p99"] or 0) > _SLOW_CLIENT * (latency["p99"] or 0):
        text.append(f"Most of the latency is this client's, not the service's: {_REMEDIES[CLIENT]}.")
    if value["replicas"]:
        text.append(
            f"Replicas: {_format_range(value['replicas'], 'ready')}; {_format_range(value['replicas'], 'desired')}"
        )
    if value["interrupted"]:
        text.append(f"Ended early: {value['rate']} requests a second were scheduled for {value['duration']}")
    text += _build_reason_table("FAILED", value["failures"])
    if value["lateReasons"]:
        text += [*_build_reason_table("LATE", value["lateReasons"]), _explain_late(value["lateReasons"])]
    if value["forwardError"]:
        text.append(
            f"The port-forward failed ({value['forwardError']}): later failures are not the service's."
            " Use --url, from a machine that can reach the service."
        )
    if value["plot"]:
        text.append(f"Plot: {value['plot']}")
    return text


def _format_counts(value: Mapping[str, Any]) -> str:
    return (
        f"{value['scheduled']} scheduled in {value['seconds']:.1f} s: {value['answered']} answered"
        f" ({value['answeredPerSecond']:.1f}/s), {value['failed']} failed, {value['late']} late"
    )


def _format_percentiles(figures: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {format_milliseconds(figure)}" for name, figure in figures.items())


def _format_range(replicas: Mapping[str, Mapping[str, int]], name: str) -> str:
    counts = replicas[name]
    return f"{name} {counts['first']} at first, {counts['most']} at most, {counts['last']} at the end"


def _build_reason_table(head: str, reasons: Sequence[Mapping[str, Any]]) -> list[str | Table]:
    if not reasons:
        return []
    rows = tuple((str(why["count"]), f"{why['first']:.1f}s", f"{why['last']:.1f}s", why["message"]) for why in reasons)
    return ["", Table((head, "FIRST", "LAST", "REASON"), rows)]


def _explain_late(reasons: Sequence[Mapping[str, Any]]) -> str:
    """Return the explanation of late requests, with a remedy."""
    remedies = "; ".join(_REMEDIES[why["message"]] for why in reasons)
    return (
        f"Late requests were not sent: they could not be started within {PATIENCE:g} s of when they were due;"
        f" {remedies}."
    )


def _build_table(rows: Sequence[Second] | deque[Second]) -> RichTable:
    table = RichTable(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for row in rows:
        cells = (row.second, row.scheduled, row.answered, row.failed, row.late)
        bad = {3: row.failed, 4: row.late}
        table.add_row(
            *(RichText(str(cell), style="red" if bad.get(place) else "") for place, cell in enumerate(cells)),
            format_milliseconds(row.p50),
            format_milliseconds(row.p99),
            *("-" if figure is None else str(figure) for figure in (row.ready, row.desired)),
        )
    return table
