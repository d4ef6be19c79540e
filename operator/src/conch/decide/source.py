"""Watched sources: which content a track has to serve, as its pods read the listings of its sources.

A revision that storage.watch created has the predictor of the spec, and the identities of the listings in its name. So
the newest revision of the spec's predictor shows which content is in force, also while no pod reports.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from conch.api import InferenceService, Predictor
from conch.decide.naming import pod_fields, revision_name
from conch.observe import Pod, Revision, Track
from conch_contract import AgentReport

Sources = Mapping[str, str]
"""Identities of the listings of watched sources, by name of the model."""


@dataclass(frozen=True)
class CurrentSources:
    """The sources as a pod has read them.

    Attributes:
        identities: Of all watched sources, by model.
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
    return revision_name(track.service.track, track.service.spec.predictor, sources), sources


def _find_sources(track: Track) -> Sources:
    """Return the listings that the wanted revision is created for; empty: it is created for the spec."""
    watched = list_watched(track.service, rolls_out=True)
    newest_first = sorted(_list_revisions(track), key=lambda revision: -revision.number) if watched else []
    if not newest_first:
        return {}
    newest, current = newest_first[0], find_current(track, watched)
    # Pods of a revision that has no content yet take what there is, unless it was created for a listing.
    if current is None or not read_sources(newest, watched):
        return newest.sources
    known = (revision for revision in newest_first if read_sources(revision, watched) == current.identities)
    return next((revision.sources for revision in known), current.identities)


def _list_revisions(track: Track) -> list[Revision]:
    """Return the revisions with the spec's predictor, which differ in their content."""
    wanted = pod_fields(track.service.spec.predictor)
    return [each for each in track.revisions.values() if pod_fields(Predictor.model_validate(each.predictor)) == wanted]


def read_sources(revision: Revision, watched: frozenset[str]) -> Sources:
    """Return the listings of which a revision has its content; empty: they are not known.

    Args:
        revision: The revision.
        watched: Names of the models whose sources are watched.
    """
    known = {name: content.source_identity for name, content in revision.contents.items() if content.source_identity}
    found = {**revision.sources, **known}
    return {name: found[name] for name in watched} if watched <= found.keys() else {}


def find_current(track: Track, watched: frozenset[str]) -> CurrentSources | None:
    """Return the sources as the pod has read them that saw the last change; None: no pod has read all of them.

    Args:
        track: The track.
        watched: Names of the models whose sources are watched.
    """
    # Pods of another predictor may read another URI.
    revisions = {revision.name for revision in _list_revisions(track)}
    reports = (pod.report for pod in track.pods if pod.report and not pod.leaving and pod.revision in revisions)
    found = (_read_current(report, watched) for report in reports)
    return max(filter(None, found), key=lambda each: (each.since, sorted(each.identities.items())), default=None)


def _read_current(report: AgentReport, watched: frozenset[str]) -> CurrentSources | None:
    sources = [source for source in report.sources if source.model in watched and source.identity]
    if not watched or {source.model for source in sources} != watched:
        return None
    return CurrentSources({source.model: source.identity for source in sources}, max(each.since for each in sources))
