"""What a person reads of a run: while it goes on, and at its end. Computes nothing."""

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

_COLUMNS: Final = ("SECOND", "ASKED", "ANSWERED", "FAILED", "LATE", "P50", "P99", "READY", "DESIRED")
_ROWS: Final = 15
_TERMINAL_SECONDS: Final = 1.0
_PIPE_SECONDS: Final = 5.0
_SLOW_CLIENT: Final = 0.5  # the part of the latency, above which the client is to blame
_REMEDIES: Final = {
    IN_FLIGHT: "the service answers more slowly than it is asked: it is at its limit, or raise --concurrency",
    CLIENT: "this machine cannot start that many: lower --rate, or share it out to several machines",
}


class Telling:
    """The run as it goes on: the last seconds as a table on a terminal, a line each few seconds elsewhere."""

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
    def every(self) -> float:
        """Seconds from one telling to the next."""
        return _TERMINAL_SECONDS if self._live else _PIPE_SECONDS

    def say(self, text: str) -> None:
        """Tell a sentence."""
        self._console.print(RichText(text), soft_wrap=True)

    def tell(self, row: Second, in_flight: int) -> None:
        """Tell what came since the last time."""
        if self._live is None:
            self.say(line(row, self.every, in_flight))
            return
        self._rows.append(row)
        self._live.update(_table(self._rows), refresh=True)


def line(row: Second, seconds: float, in_flight: int) -> str:
    """Return one line of what came in so many seconds."""
    replicas = "" if row.ready is None else f", {row.ready} ready of {row.desired} desired replicas"
    return (
        f"{row.second:>4}s  {row.asked} asked, {row.answered} answered ({row.answered / seconds:.1f}/s),"
        f" {row.failed} failed, {row.late} late, {in_flight} in flight;"
        f" p50 {milliseconds(row.p50)}, p99 {milliseconds(row.p99)}{replicas}"
    )


def milliseconds(value: float | None) -> str:
    """Return a latency with three figures, or so.

    >>> [milliseconds(value) for value in (None, 0.0, 0.2511, 41.27, 1234.5)]
    ['-', '0ms', '0.251ms', '41.3ms', '1234ms']
    """
    if not value:
        return "-" if value is None else "0ms"
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}ms"


def summary_text(value: Mapping[str, Any]) -> Text:
    """Return what a person reads at the end."""
    latency, behind = value["latencyMilliseconds"], value["clientBehindMilliseconds"]
    text: list[str | Table] = [
        "",
        _counts(value),
        f"Latency from when a request was due: {_spread(latency)}",
        f"Of it, this client's own delay: {_spread(behind)}",
    ]
    if (behind["p99"] or 0) > _SLOW_CLIENT * (latency["p99"] or 0):
        text.append(f"These latencies are this client's rather than the service's: {_REMEDIES[CLIENT]}.")
    if value["replicas"]:
        text.append(f"Replicas: {_course(value['replicas'], 'ready')}; {_course(value['replicas'], 'desired')}")
    if value["interrupted"]:
        text.append(f"Ended early: {value['rate']} a second were to be asked for {value['duration']}")
    text += _reasons("FAILED", value["failures"])
    if value["lateBecause"]:
        text += [*_reasons("LATE", value["lateBecause"]), _late(value["lateBecause"])]
    if value["forwardLost"]:
        text.append(
            f"The port-forward was lost ({value['forwardLost']}): failures since then are not the service's."
            " Ask with --url, from where the service can be reached."
        )
    if value["plot"]:
        text.append(f"Picture: {value['plot']}")
    return text


def _counts(value: Mapping[str, Any]) -> str:
    return (
        f"{value['asked']} asked in {value['seconds']:.1f} s: {value['answered']} answered"
        f" ({value['answeredPerSecond']:.1f}/s), {value['failed']} failed, {value['late']} late"
    )


def _spread(figures: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {milliseconds(figure)}" for name, figure in figures.items())


def _course(replicas: Mapping[str, Mapping[str, int]], name: str) -> str:
    seen = replicas[name]
    return f"{name} {seen['first']} at first, {seen['most']} at most, {seen['last']} at the end"


def _reasons(head: str, reasons: Sequence[Mapping[str, Any]]) -> list[str | Table]:
    if not reasons:
        return []
    rows = tuple((str(why["count"]), f"{why['first']:.1f}s", f"{why['last']:.1f}s", why["message"]) for why in reasons)
    return ["", Table((head, "FIRST", "LAST", "BECAUSE"), rows)]


def _late(reasons: Sequence[Mapping[str, Any]]) -> str:
    """Say what can be done."""
    told = "; ".join(_REMEDIES[why["message"]] for why in reasons)
    return (
        f"Late requests were not sent: they could not be started within {PATIENCE:g} s of when they were due; {told}."
    )


def _table(rows: Sequence[Second] | deque[Second]) -> RichTable:
    table = RichTable(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for row in rows:
        cells = (row.second, row.asked, row.answered, row.failed, row.late)
        bad = {3: row.failed, 4: row.late}
        table.add_row(
            *(RichText(str(cell), style="red" if bad.get(place) else "") for place, cell in enumerate(cells)),
            milliseconds(row.p50),
            milliseconds(row.p99),
            *("-" if figure is None else str(figure) for figure in (row.ready, row.desired)),
        )
    return table
