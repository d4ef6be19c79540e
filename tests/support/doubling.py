"""The model of models/double behind a gateway: services of it, requests to it, and the revision that answers each.

Revisions differ in the factor by which they multiply, so that each answer shows its revision.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal

import aiohttp
import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio

from tests.support.gateways import Gateway
from tests.support.kube import Kube
from tests.support.service import Service
from tests.support.traffic import Mix, RepeatedRequest
from tests.support.wait import until

NUMBERS: Final = np.array([1.5, 2.0], dtype=np.float32)
LIGHT: Final = Mix(grpc=2, fresh=2, kept=2, rate=10)
Protocol = Literal["http", "grpc"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("http", "grpc")
# A pod that goes waits so long, and not half a minute, for clients and proxies that keep their connections.
SHORT: Final = {"longestRequest": "5s"}
_MODEL: Final = "double"
_CLIENTS: Final = 8


def build_request(*factors: int) -> RepeatedRequest:
    """Return a request to repeat: an answer by any of these factors is right."""

    def right(answer: np.ndarray[Any, Any]) -> bool:
        return answer.tolist() in [(factor * NUMBERS).tolist() for factor in factors]

    return RepeatedRequest(_MODEL, "x", NUMBERS, "y", right)


def build_predictor(factor: int) -> dict[str, Any]:
    """Return the part of a predictor that changes: where its files are, and by what it multiplies."""
    model = {
        "name": _MODEL,
        "modelFormat": {"name": "python"},
        "storageUri": f"s3://models/times-{factor}",
        "storage": {"secretRef": {"name": "s3"}},
    }
    return {"model": model, "pod": environment(FACTOR=factor)}


def build_content(factor: int, **settings: object) -> dict[str, Any]:
    """Return the same, where only the model's configuration changes, and not its pods."""
    values = {"FACTOR": factor, **settings}
    parameters = {name: str(value) for name, value in values.items()}
    return {"model": build_predictor(2)["model"], "triton": {"parameters": parameters}}


def environment(**values: object) -> dict[str, Any]:
    """Return the part of a predictor that sets how the model behaves (models/double/model.py)."""
    return {"env": [{"name": name, "value": str(value)} for name, value in values.items()]}


def apply_behind_gateway(
    kube: Kube, namespace: str, gateway: Gateway, predictor: Mapping[str, Any], **spec: Any
) -> Service:
    """Make a service that doubles numbers behind a gateway, at `host_of` it."""
    if gateway.name == "traefik":  # docs/rollouts.md, "gRPC through Traefik"
        predictor = {"triton": {"args": ["--grpc-max-connection-age=600000"]}, **predictor}
    manifest = {
        "apiVersion": "conch.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": _MODEL},
        "spec": {
            "predictor": {**build_predictor(2), **predictor},
            "traffic": {"gateways": [gateway.parent], "hostnames": [f"{namespace}.example.com"]},
            **spec,
        },
    }
    kube.apply(manifest, namespace)
    return Service(kube, namespace, _MODEL)


def host_of(service: Service) -> str:
    """The name under which a gateway knows the service."""
    return f"{service.namespace}.example.com"


def near(seen: Counter[int], shares: Mapping[int, float]) -> bool:
    """Whether each factor's answers are its share of all, in percent, within three standard deviations."""
    count = seen.total()
    return all(
        abs(seen[factor] - count * share / 100) <= 3 * math.sqrt(count * share / 100 * (1 - share / 100))
        for factor, share in shares.items()
    )


def wait_for_shares(
    gateway: Gateway, service: Service, shares: Mapping[int, float], headers: Mapping[str, str] | None = None
) -> None:
    """Wait until the gateway's shares are those of its route. Traefik applies it up to two seconds after Accepted."""
    what = f"answers by factor, in percent, are {dict(shares)}"
    until(lambda: near(count_factors(gateway, service, 200, headers), shares), what)


def count_factors(
    gateway: Gateway,
    service: Service,
    count: int,
    headers: Mapping[str, str] | None = None,
    *,
    over: Protocol = "http",
) -> Counter[int]:
    """Send as fast as a few clients can; count the answers by the factor that they show, 0 for none."""
    send = {"http": _over_http, "grpc": _over_grpc}[over]
    return asyncio.run(send(gateway.address, host_of(service), dict(headers or {}), count))


async def _over_http(address: str, host: str, headers: dict[str, str], count: int) -> Counter[int]:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]}
    url = f"http://{address}/v2/models/{_MODEL}/infer"
    async with aiohttp.ClientSession(headers={"Host": host, **headers}) as session:

        async def send() -> int:
            async with session.post(url, json=body) as answer:
                return int((await answer.json())["outputs"][0]["data"][0]) if answer.status == 200 else 0

        return await _counted(send, count)


async def _over_grpc(address: str, host: str, headers: dict[str, str], count: int) -> Counter[int]:
    x = over_grpc.InferInput("x", [1], "FP32")
    x.set_data_from_numpy(np.ones(1, dtype=np.float32))
    authority = [("grpc.default_authority", host)]
    async with over_grpc_aio.InferenceServerClient(address, channel_args=authority) as client:

        async def send() -> int:
            try:
                answer = await client.infer(_MODEL, [x], headers=headers)
            except over_grpc.InferenceServerException:
                return 0
            return int(answer.as_numpy("y")[0])

        return await _counted(send, count)


async def _counted(send: Callable[[], Awaitable[int]], count: int) -> Counter[int]:
    """Count the factors of so many requests, sent by a few clients side by side."""
    factors_seen: Counter[int] = Counter()
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            factors_seen[await send()] += 1

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return factors_seen
