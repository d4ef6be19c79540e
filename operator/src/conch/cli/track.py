"""Which part of a service a command speaks of: its predictor, or one of its variants. Pure.

A variant is looked at as a service of its own (`InferenceService.of_variant`), so the commands know of variants
little more than what is here.
"""

from collections.abc import Callable

import click

from conch.api import InferenceService, Variant
from conch.cli.options import Refused


def variant_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option `--variant`, None where it is not said: the predictor is meant."""
    return click.option("--variant", metavar="NAME", help="One of spec.variants; default: the predictor.")(command)


def chosen(service: InferenceService, variant: str | None) -> InferenceService:
    """Return the service as the variant that is meant.

    Without a variant it is the service as it is, in which the predictor's status speaks, and all variants are seen.

    Raises:
        Refused: it has no such variant.
    """
    if variant is None:
        return service
    there = [each.name for each in service.spec.variants]
    if variant not in there:
        name = service.metadata.name
        known = f"there are: {', '.join(there)}" if there else "it has none; leave out --variant"
        raise Refused(f"{name} has no variant {variant!r} ({known}); {look(service)}")
    return service.of_variant(variant)


def subject(service: InferenceService) -> str:
    """Return what is spoken of, such as `magika`, or `variant int8 of magika`."""
    name = service.metadata.name
    return f"variant {service.variant} of {name}" if service.variant else name


def noun(service: InferenceService) -> str:
    """Return what of the spec it is: `the predictor`, or `variant int8`."""
    return f"variant {service.variant}" if service.variant else "the predictor"


def where(service: InferenceService) -> str:
    """Return how a command is told what is spoken of, with a blank before it."""
    variant = f" --variant {service.variant}" if service.variant else ""
    return f" {service.metadata.name} -n {service.metadata.namespace}{variant}"


def look(service: InferenceService) -> str:
    """Return the way to the state of the service as a whole."""
    return f"see: kubectl conch status {service.metadata.name} -n {service.metadata.namespace}"


def requests_of(variant: Variant) -> str:
    """Return which requests a variant gets, in words.

    >>> [requests_of(Variant(name="b", **way)) for way in ({"weight": 20}, {"mirror": "2.5%"}, {})]
    ['weight 20 %', 'mirror 2.5 %', 'own Service only']
    """
    if variant.weight:
        return f"weight {variant.weight} %"
    if variant.mirror:
        return f"mirror {variant.mirror.removesuffix('%')} %"
    told = (" and ".join(f"{header.name}: {header.value}" for header in match.headers) for match in variant.match)
    return f"match {', or '.join(told)}" if variant.match else "own Service only"
