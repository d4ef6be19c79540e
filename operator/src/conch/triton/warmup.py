"""The warm-up of the contract, which agent and Job read, from the spec."""

from typing import Any

from conch import api
from conch.api.numbers import percent
from conch_contract import Warmup, WarmupRequest


def build_warmup(spec: api.ModelWarmup | None) -> Warmup | None:
    """Return the contract's warm-up, in its units: fractions and seconds."""
    if spec is None:
        return None
    requests = spec.requests if isinstance(spec, api.Warmup) else ()
    return Warmup(
        requests=tuple(_convert_request(request) for request in requests),
        config_map=spec.config_map_ref.name if spec.config_map_ref else "",
        path=spec.path or "",
        tolerance=float(percent(spec.tolerance)),
        percentile=spec.stable.percentile,
        within=float(percent(spec.stable.within)),
        timeout_seconds=spec.timeout_seconds,
    )


def _convert_request(request: api.WarmupRequest) -> WarmupRequest:
    body: dict[str, Any] = {"inputs": [tensor.to_wire() for tensor in request.inputs]}
    if request.parameters is not None:
        body["parameters"] = request.parameters
    return WarmupRequest(
        name=request.name or "", body=body, expected=tuple(tensor.to_wire() for tensor in request.expected)
    )
