"""The table of revision Jobs: each row has a builder, a reader and a program, and a report that all three agree on."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from conch.api import InferenceService
from conch.api.kinds import JOB, Ref
from conch.api.meta import selector
from conch.decide.naming import revision_name
from conch.desire import PodDefaults, build_revision
from conch.desire.children import PROGRAMS
from conch.desire.jobs import Program, build_revision_job
from conch.observe import Revision
from conch.observe.cache_fields import trim
from conch.observe.identity import revision_of
from conch.observe.jobs import find_idle_jobs, has_failed, read_reports
from conch_agent.job import Job, write_report
from conch_agent.settings import Settings
from conch_contract import JobReport, names
from conch_contract.revision_jobs import REVISION_JOBS, WARMUP, RevisionJob, find_job
from tests.unit.simulation import Cluster, build_manifest, end_job

EACH_JOB = pytest.mark.parametrize("row", REVISION_JOBS, ids=lambda row: row.name)
REVISION = "magika-bcdfghjklm"
GATES_BY_JOB: dict[str, dict[str, Any]] = {"parity": {"parity": {}}}
LONGEST_SUFFIX = len("-warmup")  # api/names.py: of the names of a variant's objects


def program_of(row: RevisionJob[JobReport]) -> type[Job[Any]]:
    """Return the program of a row, which the image installs as a script."""
    project = Path(__file__).parents[2] / "serving-image" / "agent" / "pyproject.toml"
    module, _, name = tomllib.loads(project.read_text())["project"]["scripts"][row.program].partition(":")
    found: type[Job[Any]] = getattr(import_module(module), name).__wrapped__.__self__
    assert issubclass(found, Job)
    return found


def service() -> InferenceService:
    return InferenceService.parse(build_manifest("s3://models/magika", warmup={}))


def revision(of: InferenceService) -> Revision:
    return build_revision(of, revision_name(of.metadata.name, of.spec.predictor), 1, PodDefaults("conch/serving:1"))


def job(row: RevisionJob[JobReport], *, uid: str = "job", failed: str = "", deleted: bool = False) -> dict[str, Any]:
    """Return a Job of the cluster."""
    condition = {"type": "Failed", "status": str(bool(failed)), "message": failed}
    meta = {"name": row.format_name(REVISION), "uid": uid} | ({"deletionTimestamp": "now"} if deleted else {})
    return {"kind": "Job", "metadata": meta, "status": {"conditions": [condition]}}


def pod(row: RevisionJob[JobReport], message: str | None, *, owner: str = "job", code: int = 0) -> dict[str, Any]:
    """Return the pod of a Job, which ended with a message; None: it runs."""
    ended = {"terminated": {"exitCode": code, "reason": "Completed", "message": message}}
    state: dict[str, Any] = {"running": {}} if message is None else ended
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "labels": {row.label: REVISION},
            "ownerReferences": [{"uid": owner, "controller": True}],
        },
        "status": {"phase": "Succeeded", "containerStatuses": [{"name": row.name, "state": state}]},
    }


def test_the_names_of_a_row_are_its_own() -> None:
    for each in ([row.label for row in REVISION_JOBS], [row.program for row in REVISION_JOBS]):
        assert len(set(each)) == len(REVISION_JOBS)
    assert len({row.report for row in REVISION_JOBS}) == len(REVISION_JOBS)


@EACH_JOB
def test_a_job_is_known_by_its_name(row: RevisionJob[JobReport]) -> None:
    name = row.format_name(REVISION)
    assert find_job(name) == row
    assert revision_of({"metadata": {"name": name}}) == REVISION
    assert len(row.format_name("")) <= LONGEST_SUFFIX


@EACH_JOB
def test_a_job_that_ends_without_a_report_is_retried(row: RevisionJob[JobReport]) -> None:
    broken = row.report(reason=row.broken)
    assert broken.has_failed
    assert broken.is_retryable
    assert broken.exit_status == 2
    assert not row.report.successes & row.report.retryable


def test_each_row_has_a_builder_and_each_builder_a_row() -> None:
    assert PROGRAMS.keys() == set(REVISION_JOBS)


def test_each_job_is_built_with_the_arguments_of_its_program_one_job_at_a_time() -> None:
    cluster = Cluster(build_manifest(warmup={}, rollout={"analysis": list(GATES_BY_JOB.values())}))
    cluster.settle()
    cluster.start_pods(cluster.decision().wanted)
    cluster.settle()
    cluster.edit(uri="s3://models/new")
    cluster.settle()
    candidate = cluster.decision().wanted
    assert candidate != cluster.decision().serving
    cluster.start_pods(candidate)
    assert GATES_BY_JOB.keys() == {row.name for row in REVISION_JOBS} - {WARMUP.name}
    seen: set[str] = set()
    for row in REVISION_JOBS:
        cluster.settle()
        seen.add(row.format_name(candidate))
        assert {ref.name for ref in cluster.objects if ref.kind == JOB} == seen
        [container] = cluster.objects[Ref(JOB, row.format_name(candidate))]["spec"]["template"]["spec"]["containers"]
        program, *arguments = container["command"]
        assert program == row.program
        program_of(row).parse([argument.replace("$$", "$") for argument in arguments])
        end_job(cluster, row, candidate, row.report(reason=min(row.report.successes)))


@EACH_JOB
def test_each_row_has_a_program_in_the_image_that_leaves_its_report(
    row: RevisionJob[JobReport], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = program_of(row)
    assert program.row is row
    message = tmp_path / "message"
    required = [f"{action.option_strings[0]}=m" for action in program.build_parser()._actions if action.required]
    monkeypatch.setattr("sys.argv", [row.program, f"--root={tmp_path}", f"--message={message}", *required])
    with pytest.raises(SystemExit) as ended:
        program.main()
    report = row.report.model_validate_json(message.read_text())
    assert report.reason == "InvalidManifest"
    assert ended.value.code == report.exit_status == 1
    assert capsys.readouterr().out.startswith("InvalidManifest: ")


@EACH_JOB
@pytest.mark.parametrize("error", [ZeroDivisionError("of one"), OSError(28, "No space left on device")])
async def test_a_defect_of_a_program_is_reported(row: RevisionJob[JobReport], error: Exception, tmp_path: Path) -> None:
    class Defect(Job[Any]):
        async def measure(self, manifest: object) -> Any:  # noqa: ARG002  the error is not about it
            raise error

        add_options = format_numbers = lambda *_: None  # type: ignore[assignment]

    Defect.row = row
    settings = Settings(root=tmp_path)
    settings.find_manifest().parent.mkdir(parents=True)
    settings.find_manifest().write_text('{"models": []}')
    report = await Defect(settings=settings, scratch=tmp_path, message=tmp_path / "message").run()
    assert (report.reason, report.exit_status) == ("InternalError", 2)
    assert report.message == f"{type(error).__name__}: {error}"


@EACH_JOB
@pytest.mark.parametrize("letter", ["x", "ü", '"', "\n"])
def test_the_kubelet_cuts_no_termination_message(row: RevisionJob[JobReport], letter: str, tmp_path: Path) -> None:
    report = row.report(reason=row.broken, message="Request a: " + letter * 5000)
    file = tmp_path / "termination-log"
    write_report(report, file)
    assert len(file.read_bytes()) <= 4096
    read_back = row.report.model_validate_json(file.read_text())
    assert read_back.message.startswith("Request a: ")
    assert read_back.message.endswith("…")
    assert read_back.model_copy(update={"message": report.message}) == report


@EACH_JOB
def test_no_selector_of_serving_pods_selects_the_pod_of_a_job(row: RevisionJob[JobReport]) -> None:
    made, own = service(), revision(service())
    body = build_revision_job(row, made, own, Program(("--a=$(HOME)",), 30))
    labels = body["spec"]["template"]["metadata"]["labels"]
    for chosen in (selector(made), selector(made, own.name)):
        assert not chosen.items() <= labels.items()
    assert labels[row.label] == body["metadata"]["labels"][row.label] == own.name
    others = {other.label for other in REVISION_JOBS if other is not row}
    assert not {names.LABEL_REVISION, *others} & labels.keys(), "a pod that serves has LABEL_REVISION"


@EACH_JOB
def test_the_job_has_no_api_credentials_and_is_restricted(row: RevisionJob[JobReport]) -> None:
    spec = build_revision_job(row, service(), revision(service()), Program(("--a=$(HOME)",), 30))["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert (container["name"], container["command"]) == (row.name, [row.program, "--a=$$(HOME)"])
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["activeDeadlineSeconds"] == 3 * 30 + 300


SUCCESS, FINAL, RETRYABLE = "success", "final", "retryable"


@EACH_JOB
@pytest.mark.parametrize(
    ("kinds", "failed", "expected"),
    [
        ([], "", None),
        ([SUCCESS], "", SUCCESS),
        ([FINAL], "", FINAL),
        ([RETRYABLE], "", None),
        ([RETRYABLE, SUCCESS], "", SUCCESS),
        ([SUCCESS, RETRYABLE], "", SUCCESS),
        ([RETRYABLE, FINAL], "", FINAL),
        ([FINAL, RETRYABLE], "", FINAL),
        ([FINAL, RETRYABLE], "Job has reached its backoff limit", FINAL),
        ([SUCCESS, FINAL], "", SUCCESS),
        ([FINAL, SUCCESS], "", SUCCESS),
        ([RETRYABLE], "Job has reached its backoff limit", RETRYABLE),
        ([], "Job has reached its backoff limit", "broken"),
    ],
)
def test_the_best_report_counts_and_one_that_a_retry_may_cure_when_the_job_has_failed(
    row: RevisionJob[JobReport], kinds: list[str], failed: str, expected: str | None
) -> None:
    reasons = {
        SUCCESS: min(row.report.successes),
        FINAL: "AccessDenied",
        RETRYABLE: "InternalError",
        "broken": row.broken,
    }
    pods = [pod(row, row.report(reason=reasons[kind]).to_json()) for kind in kinds]
    jobs = [job(row, failed=failed)]
    found = read_reports(pods, jobs)
    assert found == read_reports([trim(each) for each in pods], jobs)
    report = found.get(row.format_name(REVISION))
    assert (report.reason if report else None) == (reasons[expected] if expected else None)
    assert report is None or isinstance(report, row.report)
    assert has_failed(jobs[0]) == bool(failed)


@EACH_JOB
def test_an_end_without_a_report_has_its_exit_code_and_the_end_of_the_log(row: RevisionJob[JobReport]) -> None:
    ends = [pod(row, "Traceback: no", code=137), pod(row, "[1]"), pod(row, "")]
    found = [read_reports([end], [job(row, failed="Too late")])[row.format_name(REVISION)] for end in ends]
    assert {report.reason for report in found} == {row.broken}
    end = f"The {row.activity} ended without a report (Completed, exit code "
    assert [report.message for report in found] == [
        f"{end}137). The end of its log: Traceback: no",
        f"{end}0). The end of its log: [1]",
        f"{end}0).",
    ]


@EACH_JOB
def test_a_job_that_failed_without_a_pod_has_the_message_of_its_condition(row: RevisionJob[JobReport]) -> None:
    [report] = read_reports([], [job(row, failed="Too late")]).values()
    assert (report.reason, report.message) == (row.broken, f"The {row.title} Job failed: Too late")


@EACH_JOB
def test_a_job_that_is_deleted_or_of_no_row_and_a_pod_of_another_owner_have_no_report(
    row: RevisionJob[JobReport],
) -> None:
    good = row.report(reason=min(row.report.successes)).to_json()
    foreign = job(row) | {"metadata": {"name": "import", "uid": "job"}}
    assert not read_reports([pod(row, good)], [job(row, deleted=True)])
    assert not read_reports([pod(row, good)], [foreign])
    assert not read_reports([pod(row, good)], [])
    assert not read_reports([pod(row, good, owner="earlier")], [job(row)])
    assert not read_reports([pod(row, None)], [job(row)])


def test_jobs_of_one_revision_have_their_own_reports() -> None:
    jobs = [job(row, uid=row.name) for row in REVISION_JOBS]
    pods = [pod(row, row.report(reason=min(row.report.successes)).to_json(), owner=row.name) for row in REVISION_JOBS]
    found = read_reports(pods, jobs)
    assert [type(found[row.format_name(REVISION)]) for row in REVISION_JOBS] == [row.report for row in REVISION_JOBS]
    assert not find_idle_jobs(pods, jobs)
    assert list(find_idle_jobs(pods[1:], jobs)) == [REVISION_JOBS[0].name]
    assert not find_idle_jobs([], [job(WARMUP, deleted=True)])
