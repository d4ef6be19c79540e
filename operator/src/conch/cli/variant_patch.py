"""The predictor of a variant that restores one of its revisions. Pure.

A revision has the merged predictor. A variant can add and replace fields of `spec.predictor`, but not remove them. So
the result is checked with the functions that merge the variant and name its revision.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from conch.api import InferenceService, Predictor, VariantPredictor
from conch.api.variants import MERGED
from conch.cli.options import CommandError
from conch.cli.track import describe_subject, format_arguments
from conch.decide.naming import NOT_OF_PODS, pod_fields, revision_name
from conch.observe import Revision


def build_variant_predictor(service: InferenceService, variant: str, revision: Revision) -> dict[str, Any]:
    """Return the fields of a variant's predictor that restore a revision, without those of the number of pods.

    Raises:
        CommandError: spec.predictor has a field that the revision did not have, and a variant cannot remove it.
    """
    then = pod_fields(Predictor.model_validate(revision.predictor).to_wire())
    fields = _compute_difference(_select_pod_fields(service.spec.predictor.to_wire()), then)
    predictor = VariantPredictor.model_validate(fields)
    variants = tuple(
        each.model_copy(update={"predictor": predictor}) if each.name == variant else each
        for each in service.spec.variants
    )
    restored = service.model_copy(update={"spec": service.spec.model_copy(update={"variants": variants})})
    track = restored.of_variant(variant)
    if revision_name(track.track, track.spec.predictor) == revision.name:
        return fields
    differing = ", ".join(_list_differences(pod_fields(track.spec.predictor.to_wire()), then))
    raise CommandError(
        f"revision {revision.number} of {describe_subject(track)} had other values of {differing} than spec.predictor"
        " has now, or none, and a variant cannot remove a field; change these fields in spec.predictor, which changes"
        f" the predictor too, or set similar values by the fields of the revision: kubectl conch"
        f" history{format_arguments(track)} -o yaml"
    )


def _select_pod_fields(predictor: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in predictor.items() if field not in NOT_OF_PODS}


def _compute_difference(predictor: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields in which `then` differs from the predictor; both as JSON, without those of the number of pods.

    A field that is not merged and that `then` lacks had its defaults, which {} restores.

    >>> now = {"model": {"storageUri": "a"}, "triton": {"shmSize": "1Gi"}}
    >>> _compute_difference(now, {"model": {"storageUri": "b"}})
    {'model': {'storageUri': 'b'}, 'triton': {}}
    """
    fields: dict[str, Any] = {}
    for field in {**then, **predictor}:
        now, before = predictor.get(field), then.get(field)
        if field in MERGED:
            now, before = now or {}, before or {}
            before = {key: value for key, value in before.items() if key != "name" and value != now.get(key)}
            if before:
                fields[field] = before
        elif before != now:
            fields[field] = {} if before is None else before
    return fields


def _list_differences(now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields in which two predictors differ."""
    for field in sorted({*now, *then}):
        one, other = now.get(field), then.get(field)
        if field in MERGED:
            one, other = one or {}, other or {}
            yield from (f"{field}.{key}" for key in sorted({*one, *other}) if one.get(key) != other.get(key))
        elif one != other:
            yield field
