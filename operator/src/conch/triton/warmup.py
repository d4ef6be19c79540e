"""From the user's words for a warm-up to the contract's, which agent and Job read."""

from typing import Any

from conch import api
from conch.api.numbers import percent
from conch_contract import Warmup, WarmupRequest


def warmup(said: api.Warmup | None) -> Warmup | None:
    """Return the contract's warm-up, in its units: fractions and seconds."""
    if said is None:
        return None
    return Warmup(
        requests=tuple(_request(request) for request in said.requests),
        config_map=said.config_map_ref.name if said.config_map_ref else "",
        path=said.path or "",
        tolerance=float(percent(said.tolerance)),
        percentile=said.stable.percentile,
        within=float(percent(said.stable.within)),
        timeout_seconds=said.timeout_seconds,
    )


def _request(said: api.WarmupRequest) -> WarmupRequest:
    body: dict[str, Any] = {"inputs": [tensor.to_wire() for tensor in said.inputs]}
    if said.parameters is not None:
        body["parameters"] = said.parameters
    return WarmupRequest(name=said.name or "", body=body, expected=tuple(tensor.to_wire() for tensor in said.expected))
