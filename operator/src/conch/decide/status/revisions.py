"""The status of one revision: its phase, its pods, and the models as its pods report them."""

from collections.abc import Sequence
from typing import Final

from conch.api import (
    InferenceService,
    ModelCounts,
    ModelStatus,
    ModelWarning,
    Phase,
    ReplicaStatus,
    RevisionStatus,
    Status,
)
from conch.api.status import MAX_LISTED_MODELS
from conch.api.times import format_time
from conch.decide.context import most_replicas
from conch.decide.diagnosis import diagnose
from conch.decide.scale_to_zero import is_scaled_to_zero
from conch.decide.signatures import is_signed
from conch.decide.status.model_config import build_model_config, limit_configs
from conch.decide.track import Decision
from conch.decide.warmup import warmed
from conch.decide.workloads import Workload
from conch.observe import Track
from conch.traffic import has_session_affinity
from conch_contract import AgentReport, ModelReport, ModelState, names
from conch_contract.report import (
    CALLEE_MISSING,
    CRASH_SUSPECTED,
    MODEL_NOT_SERVED,
    SEQUENCE_STATE,
    SEQUENCE_STATE_MESSAGE,
    is_left_out,
)
from conch_contract.verification import MOST_CHECKS

# Warnings of models whose requests fail.
FAILING: Final = frozenset({CALLEE_MISSING, CRASH_SUSPECTED, MODEL_NOT_SERVED, SEQUENCE_STATE})
_ORDER: Final = (
    ModelState.FAILED,
    ModelState.PENDING,
    ModelState.FETCHING,
    ModelState.LOADING,
    ModelState.WARMING,
    ModelState.READY,
)


def build_revision_status(decision: Decision, workload: Workload, name: str) -> RevisionStatus:
    """Return the status of a revision.

    Args:
        decision: for its track.
        workload: whose pods serve the revision.
        name: of the revision.
    """
    track = decision.track
    before = track.service.status.revision(name)
    stored = track.revisions.get(name)
    is_zero = is_scaled_to_zero(track, decision.rollout, name)
    phase = Phase.SCALED_TO_ZERO if is_zero else phase_of(track, name)
    since = before.since if before is not None and before.phase == phase else format_time(track.now)
    number = decision.number if name == decision.wanted else (stored.number if stored else 0)
    entry = (stored.entry if stored else "") or track.service.model_name
    models = _build_models(track, name, entry)
    return RevisionStatus(
        name=name,
        variant=track.service.variant or None,
        number=number,
        generation=stored.generation if stored else track.service.metadata.generation,
        phase=phase,
        weight=decision.shares.get(name, 0),
        replicas=ReplicaStatus(
            ready=track.ready(name), desired=0 if is_zero else _count_desired(decision, workload, name)
        ),
        images=_images(track, name),
        models=limit_configs(models[:MAX_LISTED_MODELS], entry),
        model_counts=_count_models(track, name, models),
        warmup=warmed(track, name),
        since=since,
    )


def _count_desired(decision: Decision, workload: Workload, name: str) -> int:
    """Return the pods that a revision has to have: all of its workload, or those that it has of two revisions' pods."""
    replicas = decision.track.replicas(workload.name) or workload.minimum
    if len(workload.revisions) == 1:
        return replicas
    assigned = sum(revision == decision.wanted for revision in decision.assignments.values())
    return assigned if name == decision.wanted else max(0, replicas - assigned)


def find_failing_requests(status: Status, revision: str) -> str:
    """Return why some requests to a revision fail although it serves, as the status has it; empty: nothing is known."""
    known = status.revision(revision)
    warnings = (warning for model in (known.models if known else ()) for warning in model.warnings)
    return next((warning.message for warning in warnings if warning.reason in FAILING), "")


def phase_of(track: Track, name: str) -> Phase:
    """Return the phase of the most advanced pod, which is that of its least advanced model; a ready pod comes first."""
    if track.ready(name) > 0:
        return Phase.READY
    if diagnose(track, name) is not None:
        return Phase.FAILED
    models = (pod.report.models for pod in track.pods_of(name) if pod.report and pod.report.models)
    states = [
        min((model.state for model in each if not is_left_out(model)), key=_ORDER.index, default=ModelState.READY)
        for each in models
    ]
    return Phase(max(states, key=_ORDER.index).value) if states else Phase.PENDING


def _images(track: Track, name: str) -> tuple[str, ...]:
    """Return the images of Triton that ready pods run; a pod that starts is no reason to write the status.

    A node reports an image under one of the names by which it was pulled, such as a mirror's; the digest identifies it.
    """
    running = [c for pod in track.pods_of(name) if pod.ready for c in pod.status["containers"]]
    found = sorted({c["imageID"] for c in running if c["name"] == names.TRITON_CONTAINER and c.get("imageID")})
    by_digest = {image.rpartition("@")[2]: image for image in reversed(found)}
    return tuple(sorted(by_digest.values()))


def _build_models(track: Track, name: str, entry: str) -> tuple[ModelStatus, ...]:
    """Return the models as pods report them, the least advanced pod first; those of before while no pod reports.

    The entry comes first, then models with a state other than Ready, a warning, or without the policy's signature.
    """
    before = track.service.status.revision(name)
    models_before = before.models if before else ()
    reports: dict[str, list[ModelReport]] = {}
    for model in (model for report in _list_reports(track, name) for model in report.models):
        reports.setdefault(model.name, []).append(model)
    by_name = {model.name: model for model in models_before}
    models = [_build_model(found, by_name.get(model)) for model, found in reports.items()]
    is_split = _is_split_over_pods(track, name)
    found = [_with_sequence_warning(model, is_split=is_split) for model in models or models_before]
    policy = track.signature_policy
    return tuple(sorted(found, key=lambda model: (model.name != entry, _is_well(model) and is_signed(model, policy))))


def _list_reports(track: Track, name: str) -> list[AgentReport]:
    """Return the reports of a revision's pods that its status depends on.

    There are none while all models are Ready, and only some of the ready pods report because of a watch: the warnings
    of the others would be lost.
    """
    pods, before = track.pods_of(name), track.service.status.revision(name)
    is_settled = before is not None and bool(before.models) and all(m.state == ModelState.READY for m in before.models)
    reporting = [pod for pod in pods if pod.report]
    if is_settled and len(reporting) < len(pods) and all(pod.ready for pod in reporting):
        return []
    return [pod.report for pod in reporting if pod.report]


def _is_well(model: ModelStatus) -> bool:
    return model.state == ModelState.READY and not model.warnings


def _build_model(reports: Sequence[ModelReport], before: ModelStatus | None) -> ModelStatus:
    """Build the status of a model from the reports of its pods.

    It has the state of the least advanced pod, and the warnings of all pods, or the previous ones until a pod has its
    content. Its configuration is that of one pod. Its checks are those that the files of all pods have passed.
    """
    model = min(reports, key=lambda report: _ORDER.index(report.state))
    fetched = [report for report in reports if report.digest or is_left_out(report)]
    found = {
        warning.reason: ModelWarning(reason=warning.reason, message=warning.message)
        for report in fetched
        for warning in report.warnings
    }
    if before is not None and not fetched:
        warnings, sequences = before.warnings, _has_sequences(before)
    else:
        warnings, sequences = tuple(found[reason] for reason in sorted(found)), SEQUENCE_STATE in found
    checked = [report for report in reports if report.digest]
    passed = [report.verified[:MOST_CHECKS] for report in checked]
    verified = tuple(name for name in model.verified[:MOST_CHECKS] if all(name in each for each in passed))
    return ModelStatus(
        name=model.name,
        versions=tuple(v.version for v in model.versions if v.state is ModelState.READY),
        state=model.state.value,
        reason=model.reason,
        message=model.message,
        digest=model.digest,
        verified=verified,
        signer=model.signer if all(report.signer == model.signer for report in checked) else "",
        sequences=sequences,
        warnings=warnings,
        config=build_model_config(reports, before),
    )


def _count_models(track: Track, name: str, models: Sequence[ModelStatus]) -> ModelCounts | None:
    """Return the numbers of ready and of all models, if the status has not all of them."""
    before = track.service.status.revision(name)
    if before is not None and not _list_reports(track, name):
        return before.model_counts
    ready = sum(model.state == ModelState.READY for model in models)
    return ModelCounts(ready=ready, total=len(models)) if len(models) > MAX_LISTED_MODELS else None


def _has_sequences(model: ModelStatus) -> bool:
    """Whether a model has sequences. Earlier operators recorded only the warning."""
    return model.sequences or any(warning.reason == SEQUENCE_STATE for warning in model.warnings)


def _with_sequence_warning(model: ModelStatus, *, is_split: bool) -> ModelStatus:
    """Return the model with the warning SequenceState if it has sequences and their requests are split over pods."""
    warnings = [warning for warning in model.warnings if warning.reason != SEQUENCE_STATE]
    if _has_sequences(model) and is_split:
        warnings.append(ModelWarning(reason=SEQUENCE_STATE, message=SEQUENCE_STATE_MESSAGE))
    found = {
        "sequences": _has_sequences(model),
        "warnings": tuple(sorted(warnings, key=lambda warning: warning.reason)),
    }
    return model.model_copy(update=found)


def _is_split_over_pods(track: Track, revision: str) -> bool:
    """Whether requests of one client may reach several pods, of this revision or of another one."""
    several = max(most_replicas(track.service), track.replicas(revision)) > 1
    return _is_shared_out(track.service) or (several and not has_session_affinity(track))


def _is_shared_out(service: InferenceService) -> bool:
    """Whether requests of one client may reach another revision or variant: then one pod of each is not one pod."""
    rollout = service.status.rollout
    return (rollout is not None and 0 < rollout.weight < 100) or any(each.weight for each in service.spec.variants)
