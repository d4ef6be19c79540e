"""Watched sources: which content a track has to serve, as its pods read the listings of its sources.

A revision that storage.watch created has the predictor of the spec, and the identities of the listings in its name. So
the newest revision of the spec's predictor shows which content is in force, also while no pod reports.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from conch.api import InferenceService
from conch.decide.naming import pod_fields, revision_name
from conch.observe import Pod, Revision, Track
from conch_contract import AgentReport

Sources = Mapping[str, str]
"""Identities of the listings of watched sources, by name of the model."""


@dataclass(frozen=True)
class CurrentSources:
    """The sources as a pod has read them.

    Attributes:
        identities: Of the watched sources, by model; one that is not required may be missing.
        since: When the newest of them was read first, in seconds since the epoch.
    """

    identities: Sources
    since: float


def list_watched(service: InferenceService, *, rolls_out: bool = False) -> frozenset[str]:
    """Return the names of the models whose sources are watched.

    Args:
        service: The service as a track.
        rolls_out: True: only those whose new content becomes a revision.
    """
    modes = {"Rollout"} if rolls_out else {"Rollout", "Report"}
    return frozenset(model.name for model in service.models if model.watch in modes)


def seconds_to_refresh(service: InferenceService) -> float | None:
    """Return the shortest interval at which a source is read, in seconds; None: none is watched."""
    return min(filter(None, (model.refresh_seconds for model in service.models)), default=None)


def find_watching_pod(track: Track) -> Pod | None:
    """Return the pod whose report shows whether the sources have changed: a ready one; None: none is watched."""
    ready = [pod for pod in track.pods if pod.ready and pod.ip and not pod.leaving]
    return min(ready, key=lambda pod: pod.name, default=None) if list_watched(track.service) else None


def name_wanted(track: Track) -> tuple[str, Sources]:
    """Return the name of the revision that the spec and the sources request, and the listings that it is created for.

    Args:
        track: The track.
    """
    sources = _find_sources(track)
    return _name_revision(track, sources), sources


def _name_revision(track: Track, sources: Sources) -> str:
    return revision_name(track.service.track, track.service.spec.predictor, sources)


def _find_sources(track: Track) -> Sources:
    """Return the listings that the wanted revision is created for; empty: it is created for the spec."""
    watched = list_watched(track.service, rolls_out=True)
    known = _list_contents(track, watched) if watched else []
    if not known:
        return {}
    newest, current = known[0], find_current(track, watched)
    # Pods of a revision that has no content yet take what there is, unless it was created for a listing.
    if current is None or not newest.identities:
        return newest.sources
    has_content = (each for each in known if each.identities)
    same = (each.sources for each in has_content if not find_changes(each.identities, current.identities))
    return next(same, current.identities)


@dataclass(frozen=True)
class _RevisionContent:
    """The content of a revision with the spec's predictor.

    Attributes:
        sources: The listings that it was created for; empty: it was created for the spec.
        identities: The listings of which it has its content; empty: they are not known.
    """

    sources: Sources
    identities: Sources


def _list_contents(track: Track, watched: frozenset[str]) -> list[_RevisionContent]:
    """Return the contents of the revisions with the spec's predictor, the newest first, then those without a record."""
    newest_first = sorted(list_revisions(track).values(), key=lambda revision: -revision.number)
    recorded = [_RevisionContent(each.sources, read_sources(track, each, watched)) for each in newest_first]
    return recorded + [each for pod in track.pods if (each := _find_lost(track, pod, watched)) is not None]


def _find_lost(track: Track, pod: Pod, watched: frozenset[str]) -> _RevisionContent | None:
    """Return the content of a pod whose revision has lost its ControllerRevision; None: it is not of the spec."""
    if pod.report is None or pod.leaving or pod.revision in track.revisions:
        return None
    fetched = {source.model: source.fetched for source in pod.report.sources if source.fetched}
    found = {name: fetched[name] for name in watched & fetched.keys()}
    named = (each for each in ({}, found) if pod.revision == _name_revision(track, each))
    return next((_RevisionContent(each, found) for each in named), None)


def list_revisions(track: Track) -> Mapping[str, Revision]:
    """Return the revisions with the spec's predictor, which differ in their content, by name."""
    wanted = pod_fields(track.service.spec.predictor.to_wire())
    return {name: each for name, each in track.revisions.items() if pod_fields(each.predictor) == wanted}


def read_sources(track: Track, revision: Revision, watched: frozenset[str]) -> Sources:
    """Return the listings of which a revision has its content; empty: they are not known.

    Args:
        track: The track.
        revision: The revision.
        watched: Names of the models whose sources are watched.
    """
    known = {name: content.source_identity for name, content in revision.contents.items() if content.source_identity}
    return _select_watched(track, {**revision.sources, **known}, watched)


def find_changes(before: Sources, after: Sources) -> list[str]:
    """Return the names of models whose listings differ; not of one that only one side has, since it may be missing.

    >>> find_changes({"net": "a", "pre": "x"}, {"net": "b", "post": "y"})
    ['net']
    """
    return sorted(name for name in before.keys() & after.keys() if before[name] != after[name])


def find_current(track: Track, watched: frozenset[str]) -> CurrentSources | None:
    """Return the sources as the pod has read them that saw the last change; None: no pod has read all of them.

    Args:
        track: The track.
        watched: Names of the models whose sources are watched.
    """
    revisions = list_revisions(track)  # pods of another predictor may read another URI
    pods = [
        pod
        for pod in track.pods
        if not pod.leaving and (pod.revision in revisions or _find_lost(track, pod, watched) is not None)
    ]
    reports = [pod.report for pod in pods if pod.report]
    # One that cannot read its source any more knows no later change, and its clock may be ahead.
    reading = [each for each in reports if not any(source.message for source in each.sources)] or reports
    found = (_read_current(track, report, watched) for report in reading)
    return max(filter(None, found), key=lambda each: (each.since, sorted(each.identities.items())), default=None)


def _read_current(track: Track, report: AgentReport, watched: frozenset[str]) -> CurrentSources | None:
    times = {source.model: source.since for source in report.sources if source.identity}
    read = {source.model: source.identity for source in report.sources if source.identity}
    identities = _select_watched(track, read, watched)
    return CurrentSources(identities, max(times[name] for name in identities)) if identities else None


def _select_watched(track: Track, identities: Sources, watched: frozenset[str]) -> Sources:
    """Return the listings of watched sources; empty where that of a model is missing that pods cannot be without."""
    required = {model.name for model in track.service.models if model.required}
    found = {name: identities[name] for name in sorted(watched & identities.keys())}
    return found if watched & required <= found.keys() else {}
