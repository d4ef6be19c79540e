"""What a variant must say to be a revision of its past again. Pure.

A revision keeps the merged predictor, since that is what its pods were. A variant can add and replace, but not take
back what the predictor says; so whether its words come to that revision is asked of the functions that merge and name.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from conch.api import InferenceService, Predictor, VariantPredictor
from conch.api.variants import MERGED
from conch.cli.options import Refused
from conch.cli.track import subject, where
from conch.decide.naming import NOT_OF_PODS, pod_fields, revision_name
from conch.observe import Revision


def variant_words(service: InferenceService, variant: str, revision: Revision) -> dict[str, Any]:
    """Return what a variant's predictor must say of its pods, to be asked for as this revision.

    Raises:
        Refused: spec.predictor says what the revision did not have, and a variant cannot take that back.
    """
    then = pod_fields(Predictor.model_validate(revision.predictor))
    words = _difference(_of_pods(service.spec.predictor.to_wire()), then)
    said = VariantPredictor.model_validate(words)
    variants = tuple(
        each.model_copy(update={"predictor": said}) if each.name == variant else each for each in service.spec.variants
    )
    asked = service.model_copy(update={"spec": service.spec.model_copy(update={"variants": variants})})
    track = asked.of_variant(variant)
    if revision_name(track.track, track.spec.predictor) == revision.name:
        return words
    fields = ", ".join(_apart(pod_fields(track.spec.predictor), then))
    raise Refused(
        f"revision {revision.number} of {subject(track)} had other words for {fields} than spec.predictor has now, or"
        " none, and a variant cannot say that; change these in spec.predictor by hand, which is a change of the"
        f" predictor too, or see what the revision had and say what is near to it: kubectl conch history{where(track)}"
        " -o yaml"
    )


def _of_pods(predictor: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in predictor.items() if field not in NOT_OF_PODS}


def _difference(predictor: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `then` has otherwise than the predictor; both as on the wire, without what sets the number of pods.

    A field that is not merged and that `then` lacks was at its defaults, which {} says.

    >>> _difference({"model": {"storageUri": "a"}, "triton": {"shmSize": "1Gi"}}, {"model": {"storageUri": "b"}})
    {'model': {'storageUri': 'b'}, 'triton': {}}
    """
    words: dict[str, Any] = {}
    for field in {**then, **predictor}:
        said, wanted = predictor.get(field), then.get(field)
        if field in MERGED:
            said, wanted = said or {}, wanted or {}
            wanted = {key: value for key, value in wanted.items() if key != "name" and value != said.get(key)}
            if wanted:
                words[field] = wanted
        elif wanted != said:
            words[field] = {} if wanted is None else wanted
    return words


def _apart(now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields in which two predictors differ."""
    for field in sorted({*now, *then}):
        one, other = now.get(field), then.get(field)
        if field in MERGED:
            one, other = one or {}, other or {}
            yield from (f"{field}.{key}" for key in sorted({*one, *other}) if one.get(key) != other.get(key))
        elif one != other:
            yield field
