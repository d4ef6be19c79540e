"""The track of a command: the predictor of a service, or one of its variants. Pure.

A variant is reduced to a service of its own (`InferenceService.of_variant`), so the commands know little more of
variants than this module.
"""

from collections.abc import Callable

import click

from conch.api import InferenceService, Variant
from conch.cli.options import CommandError


def variant_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option `--variant` to a command; None, the default: the predictor."""
    return click.option("--variant", metavar="NAME", help="One of spec.variants; default: the predictor.")(command)


def select_track(service: InferenceService, variant: str | None) -> InferenceService:
    """Return a service reduced to a variant.

    Without a variant it is the whole service: its status is the predictor's, and it has all variants.

    Raises:
        CommandError: there is no such variant.
    """
    if variant is None:
        return service
    there = [each.name for each in service.spec.variants]
    if variant not in there:
        name = service.metadata.name
        known = f"there are: {', '.join(there)}" if there else "it has none; leave out --variant"
        raise CommandError(f"{name} has no variant {variant!r} ({known}); {format_status_hint(service)}")
    return service.of_variant(variant)


def describe_subject(service: InferenceService) -> str:
    """Return the track with its service, such as `magika`, or `variant int8 of magika`."""
    name = service.metadata.name
    return f"variant {service.variant} of {name}" if service.variant else name


def describe_track(service: InferenceService) -> str:
    """Return the track: `the predictor`, or `variant int8`."""
    return f"variant {service.variant}" if service.variant else "the predictor"


def format_arguments(service: InferenceService) -> str:
    """Return the arguments that select the track in a command, after a blank."""
    variant = f" --variant {service.variant}" if service.variant else ""
    return f" {service.metadata.name} -n {service.metadata.namespace}{variant}"


def format_status_hint(service: InferenceService) -> str:
    """Return the command that shows the status of the service."""
    return f"see: kubectl conch status {service.metadata.name} -n {service.metadata.namespace}"


def describe_requests(variant: Variant) -> str:
    """Return a description of the requests that a variant gets.

    >>> [describe_requests(Variant(name="b", **kind)) for kind in ({"weight": 20}, {"mirror": "2.5%"}, {})]
    ['weight 20 %', 'mirror 2.5 %', 'own Service only']
    """
    if variant.weight:
        return f"weight {variant.weight} %"
    if variant.mirror:
        return f"mirror {variant.mirror.removesuffix('%')} %"
    matches = (" and ".join(f"{header.name}: {header.value}" for header in match.headers) for match in variant.match)
    return f"match {', or '.join(matches)}" if variant.match else "own Service only"
