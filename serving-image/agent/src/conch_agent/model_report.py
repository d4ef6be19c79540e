"""What the agent reports about a model, as a function of a snapshot of it: no clock, no Triton, no other models."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from conch_agent.callees import describe_missing
from conch_agent.model_warnings import (
    NO_CACHE,
    UNUSED_CACHE,
    build_memory_warning,
    build_not_served_warning,
    build_warnings,
    describe_unknown_trace_rates,
)
from conch_agent.reasons import Failure, Reason
from conch_agent.repository_model import RepositoryModel
from conch_agent.triton import LONGEST_MESSAGE, Version
from conch_contract import (
    ConfigValue,
    ModelReport,
    ModelSource,
    ModelState,
    ModelWarning,
    VersionReport,
    WarmupReport,
)

_STATES: Final = {"READY": ModelState.READY, "LOADING": ModelState.LOADING, "UNAVAILABLE": ModelState.FAILED}


@dataclass(frozen=True)
class ModelSnapshot:
    """A model of a pod at one time.

    Attributes:
        source: The model in the manifest.
        state: The state of its task.
        failure: Why its task does not proceed; None: it does.
        left_out: The failure of a model without which its pod is ready; None: it is served, or holds its pod.
        crash: The failure of a model that ends Triton; None: it is not known to do so.
        suspicion: The message about several models of which one ends Triton, if this is the first of them; else empty.
        outage: Why Triton cannot serve models now; None: it can.
        versions: Its versions in Triton's repository index.
        model: The model in the repository; None: there is none yet.
        bytes_fetched: Bytes of its files on disk.
        bytes_total: Bytes of its files in storage.
        fetch_seconds: Duration of the fetch.
        load_seconds: Duration of the load in Triton.
        missing: Its callees that neither the manifest nor Triton had when it became ready.
        names: Names of the models of the manifest.
        reports_unused_cache: True if no model of the pod uses Triton's response cache; only the first one reports it.
        unknown_trace_rates: Names with a trace rate that no model of the pod has; only the first one reports them.
        has_unloaded: True if the content of before was unloaded first.
        warmup: Result of the last warm-up; None: there is none yet.
        warmup_digest: Digest of the requests in the ConfigMap of the last warm-up.
        changed_warmup: Name of that ConfigMap, if the revision's first pod had other requests; else empty.
        config: The configuration that Triton uses.
        source_warning: The warning about a source that was away; None: there is none.
    """

    source: ModelSource
    state: ModelState
    failure: Failure | None
    left_out: Failure | None
    crash: Failure | None
    suspicion: str
    outage: Failure | None
    versions: tuple[Version, ...]
    model: RepositoryModel | None
    bytes_fetched: int
    bytes_total: int
    fetch_seconds: float
    load_seconds: float
    missing: tuple[str, ...]
    names: Collection[str]
    reports_unused_cache: bool
    unknown_trace_rates: tuple[str, ...]
    has_unloaded: bool
    warmup: WarmupReport | None
    warmup_digest: str
    changed_warmup: str
    config: tuple[ConfigValue, ...]
    source_warning: ModelWarning | None


def build_report(snapshot: ModelSnapshot) -> ModelReport:
    """Return the report of a model.

    Args:
        snapshot: The model.
    """
    state, failure = _find_state(snapshot)
    model = snapshot.model
    return ModelReport(
        name=snapshot.source.name,
        state=state,
        reason=failure.reason if failure else "",
        message=failure.message if failure else "",
        versions=tuple(
            VersionReport(
                version=version.version,
                state=_STATES.get(version.state, ModelState.PENDING),
                reason=version.reason[:LONGEST_MESSAGE],
            )
            for version in snapshot.versions
            if version.state and version.version
        ),
        digest=model.digest if model else "",
        origin=model.origin if model and model.uri else "",
        object_versions=model.object_versions if model and not snapshot.source.object_versions else {},
        verified=model.verified if model else (),
        signer=model.signer if model else "",
        bytes_fetched=snapshot.bytes_fetched,
        bytes_total=snapshot.bytes_total,
        fetch_seconds=snapshot.fetch_seconds,
        load_seconds=round(snapshot.load_seconds, 3),
        warnings=_build_warnings(snapshot),
        warmup=snapshot.warmup,
        warmup_digest=snapshot.warmup_digest,
        config=snapshot.config,
    )


def _find_state(snapshot: ModelSnapshot) -> tuple[ModelState, Failure | None]:
    """Return the state to report, and why the model is not ready: a failure of Triton comes before its own."""
    if snapshot.crash:
        return ModelState.FAILED, snapshot.crash  # also while Triton starts again, or loads it once more
    state, failure = snapshot.state, snapshot.failure
    if snapshot.left_out:
        state, failure = ModelState.FAILED, snapshot.left_out
    if snapshot.outage is None or state in {ModelState.FETCHING, ModelState.PENDING}:
        return state, failure
    failure = snapshot.outage if snapshot.model else failure
    if failure and failure.reason == Reason.CONTROL_OPEN:
        return ModelState.FAILED, failure
    return ModelState.LOADING if state == ModelState.READY else state, failure


def _build_warnings(snapshot: ModelSnapshot) -> tuple[ModelWarning, ...]:
    name = snapshot.source.name
    if snapshot.left_out:
        return (build_not_served_warning(name, snapshot.left_out.message, required=snapshot.source.required),)
    if snapshot.model is None:
        return ()
    missing = describe_missing(name, snapshot.missing, snapshot.names)
    cache = _describe_response_cache(snapshot, snapshot.model)
    warnings = build_warnings(
        name,
        snapshot.model,
        missing,
        changed_warmup=snapshot.changed_warmup,
        response_cache=cache,
        trace_rates=describe_unknown_trace_rates(snapshot.unknown_trace_rates, snapshot.names),
        suspicion=snapshot.suspicion,
    )
    more = [build_memory_warning(name)] if snapshot.has_unloaded else []
    more += [snapshot.source_warning] if snapshot.source_warning else []
    return (*warnings, *more)


def _describe_response_cache(snapshot: ModelSnapshot, model: RepositoryModel) -> str:
    """Return the message about a response cache of which only half is configured; empty: there is none."""
    if model.response_cache:
        return "" if snapshot.source.has_response_cache else NO_CACHE
    return UNUSED_CACHE if snapshot.source.has_response_cache and snapshot.reports_unused_cache else ""
