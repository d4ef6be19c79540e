"""The report of the bench: what is met, missed or not measured, by figures as the parts of the bench write them."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.bench import peer, results
from tests.bench.burst import Burst
from tests.bench.criteria import Results
from tests.bench.edits import Edits
from tests.bench.idle import Idle
from tests.bench.models import Result
from tests.bench.paced import Paced
from tests.bench.report import Verdict, build_row, draw_markdown
from tests.bench.restart import Restart
from tests.bench.sizes import Size
from tests.bench.targets import CRITERIA

ROOT = Path(__file__).resolve().parents[2]
MEASUREMENTS = {Burst: "burst", Paced: "paced", Edits: "edits", Restart: "restart", Idle: "idle"}
Record = type[Burst | Paced | Edits | Restart | Idle]


def run(record: Record, who: str, **figures: float) -> dict[str, Any]:
    """Return a run as `tests.bench` writes it; figures that are not given are 1."""
    unknown = set(figures) - {field.name for field in fields(record)}
    assert not unknown, f"{record.__name__} has no {unknown}"
    return {"measurement": MEASUREMENTS[record], **{field.name: 1 for field in fields(record)}, "who": who, **figures}


def size(services: int, rest_writes: int) -> dict[str, int]:
    """Return a size as `tests.bench.scale` writes it."""
    return {**{field.name: 1 for field in fields(Size)}, "services": services, "rest_writes": rest_writes}


def fetches(model: str, **seconds: float) -> list[dict[str, Any]]:
    """Return fetches of a model as `tests.bench.models` writes them; the best run counts."""
    programs = {"conch": "Conch", "kserve": "kserve-storage", "both": "s5cmd, sha256sum"}
    found = ((programs.get(what, what), taken) for what, taken in seconds.items())
    return [vars(Result(what, model, 1, (taken, 2 * taken))) for what, taken in found]


def rows(figures: Results, target: str) -> list[tuple[str, str, Verdict]]:
    """Return what was measured, the ratio and the verdict of each criterion of a target."""
    found = (build_row(criterion, figures) for criterion in CRITERIA if criterion.target == target)
    return [(row.measured, row.ratio, row.verdict) for row in found]


def test_what_has_no_figures_is_not_measured() -> None:
    found = [build_row(criterion, {}) for criterion in CRITERIA]
    assert {row.verdict for row in found} == {Verdict.NOT_MEASURED}
    assert all(not row.measured and not row.ratio for row in found)
    assert {f"P{number}" for number in range(1, 18)} <= {row.target for row in found}


def test_a_run_with_other_numbers_of_services_counts_for_no_target_that_names_one() -> None:
    records = (Burst, Edits, Restart)
    runs = [run(record, who, services=300) for record in records for who in ("R", "conch")]
    paced = [run(Paced, who, services=300, rate=10.0) for who in ("R", "conch")]
    figures = {"operator": [*runs, *paced], "scale": [size(300, 0)]}
    for target in ("P2", "P3", "P4", "P5", "P6", "P13"):
        assert {verdict for *_, verdict in rows(figures, target)} == {Verdict.NOT_MEASURED}


def test_half_of_a_comparison_is_not_measured() -> None:
    figures = {"operator": [run(Burst, "conch", services=500), run(Paced, "conch", services=200, rate=10.0)]}
    assert {verdict for target in ("P3", "P4") for *_, verdict in rows(figures, target)} == {Verdict.NOT_MEASURED}


def test_ratios_are_those_of_the_medians() -> None:
    conch = [run(Burst, "conch", services=500, services_per_second=each, cpu_ms_per_child=3) for each in (8, 9, 20)]
    figures = {"operator": [*conch, run(Burst, "R", services=500, services_per_second=10, cpu_ms_per_child=1.5)]}
    assert rows(figures, "P4") == [("9", "0.90", Verdict.MET), ("3 ms", "2.00", Verdict.MISSED)]


def test_a_restart_may_write_nothing() -> None:
    restarts = [run(Restart, who, services=2000, writes=0, settled_seconds=10) for who in ("conch", "R")]
    figures = {"operator": restarts, "scale": [size(2000, 0), size(5000, 3)]}
    rest, writes, seconds = rows(figures, "P2")
    assert rest == ("3 (5,000 services)", "", Verdict.MISSED)
    assert writes == ("0", "", Verdict.MET)
    assert seconds == ("10 s", "1.00", Verdict.MET)


def test_each_user_of_a_burst_has_a_row() -> None:
    edits = run(Edits, "conch", services=2000, same_p99_ratio=4.0, other_p99_ratio=8.9, other_burst_p99_ms=1700)
    assert rows({"operator": [edits]}, "P5") == [
        ("1 ms", "4.00", Verdict.MET),
        ("1,700 ms", "8.90", Verdict.MISSED),
    ]


def test_a_fetch_counts_where_it_is_slowest_beside_the_other_program() -> None:
    figures = {
        "models": [
            *fetches("large", conch=2.0, s5cmd=1.0, sha256sum=4.0, kserve=5.0, both=5.0),
            *fetches("small", conch=2.0, s5cmd=1.0, sha256sum=0.5, kserve=6.0, both=1.5),
        ]
    }
    slower, kserve, both = rows(figures, "P7")
    assert slower == ("2.00 (large), 0.50 (small)", "0.50", Verdict.MISSED)
    assert kserve == ("2.50 (large), 3.00 (small)", "2.50", Verdict.MET)
    assert both[1:] == ("0.75", Verdict.MISSED)
    assert rows(figures, "P8") == [("", "", Verdict.NOT_MEASURED)]


def test_warm_starts_are_no_fetches() -> None:
    warm = {"laid out": 0.009, "answered": 2.0, "Triton alone, answered": 1.5}
    figures = {"models": [vars(Result(f"warm cache: {what}", "w", 1, (taken,))) for what, taken in warm.items()]}
    assert {verdict for *_, verdict in rows(figures, "P7")} == {Verdict.NOT_MEASURED}
    assert rows(figures, "P8") == [("9.0 ms", "", Verdict.MET)]
    assert rows(figures, "P12") == [("2.00 s (+0.50 s)", "", Verdict.MET)]


@pytest.mark.parametrize(("longest", "verdict"), [(6.0, Verdict.MET), (6.1, Verdict.MISSED)])
def test_the_longest_rise_counts(longest: float, verdict: Verdict) -> None:
    figures = {"autoscaler": {"period_seconds": 5, "seconds": [1.0, 2.0, longest]}}
    assert [found for *_, found in rows(figures, "P10")] == [verdict]


def test_kserve_is_compared_in_multiples_of_r() -> None:
    kserve = {"services_per_second": 10 * peer.RATE, "cpu_ms_per_child": 2 * peer.CPU}
    conch = run(Burst, "conch", services=200, **kserve, kib_each=141, reads_each=0)
    reference = run(Burst, "R", services=200, services_per_second=10, cpu_ms_per_child=2)
    rate, cpu, memory, reads = rows({"operator": [conch, reference]}, "P13")
    assert (rate[1:], cpu[1:]) == (("1.00", Verdict.MISSED), ("1.00", Verdict.MISSED)), "equal to KServe"
    assert memory == ("141 KiB", "1.01", Verdict.MISSED)
    assert reads == ("0", "0.00", Verdict.MET)


def test_growth_of_memory_has_no_target() -> None:
    figures = {"churn": {"minutes": 10.0, "mib_a_day": {"median": 1.0, "low": -2.0, "high": 4.0}}}
    assert rows(figures, "-") == [
        ("+1.0 MiB a day (95 %: -2.0 to +4.0); 10 minutes", "", Verdict.NO_TARGET),
    ]


def test_markdown_has_a_row_for_each_criterion() -> None:
    found = [build_row(criterion, {}) for criterion in CRITERIA]
    header, rule, *lines = draw_markdown([*found[:1], replace(found[1], measured="1")]).splitlines()
    assert {line.count("|") for line in (header, rule, *lines)} == {9}
    assert [line.split(" | ")[3] for line in lines] == ["", "1"]


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    results.write(tmp_path / "new" / "scale.json", [size(2000, 0)])
    (tmp_path / "new" / ".churn.json").write_text("half of a fi")
    assert results.read(tmp_path / "new") == {"scale": [size(2000, 0)]}
    assert results.read(tmp_path / "absent") == {}


def test_the_docs_have_the_figures_of_kserve() -> None:
    page = (ROOT / "docs/measurements.md").read_text()
    section = page.partition("\n## Beside KServe\n")[2].partition("\n## ")[0]
    for kserve, reference in zip(vars(peer.KSERVE).values(), vars(peer.R).values(), strict=True):
        assert f"| {kserve:g} | {reference:g} |" in section
