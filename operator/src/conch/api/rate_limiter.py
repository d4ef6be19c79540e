"""Triton's rate limiter: which instances of a pod run at the same time."""

from typing import Annotated

from pydantic import Field

from conch.api._base import Part, list_map_key


class RateLimiterResource(Part):
    """A resource that an instance takes while it runs (Triton's ModelRateLimiter.Resource)."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of the resource."""
    count: Annotated[int, Field(ge=1, le=1_000_000)]
    """Units that an instance takes."""
    is_global: bool | None = Field(default=None, alias="global")
    """True: all devices share the resource. Absent: each has its own."""


class RateLimiter(Part):
    """Turns and resources of instances (Triton's ModelRateLimiter). An unset field has the value of config.pbtxt."""

    resources: Annotated[tuple[RateLimiterResource, ...], Field(max_length=8), list_map_key("name")] | None = None
    """What an instance takes while it runs. There are as many units as --rate-limit-resource in args has, or as the
    largest instance takes. Absent: as in config.pbtxt, or none."""
    priority: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    """An instance of priority 2 has half as many turns as one of 1. Absent: as in config.pbtxt, or 1."""
