"""The command line of tritonserver in a serving pod.

Flags of `tritonserver --help` (2.51 and later).
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Final

from conch.api import Triton
from conch.api.models import NamedModel
from conch.api.quantity import parse_quantity
from conch.api.triton import CACHE_FLAGS
from conch_contract import names

# Triton makes long-lived gRPC channels reconnect at this age: they find new pods and leave terminating ones.
# A flag in the user's args wins: Triton takes the last one. Proxies written in Go sometimes lose a request when
# they have to reconnect (docs/rollouts.md, "gRPC through Traefik").
CONNECTION_AGE_MS: Final = 4_000
# Calls and streams of such a connection continue for at least so long. A terminating pod ends them sooner.
CONNECTION_GRACE_SECONDS: Final = 3_600
# A terminating pod still serves for so long: the age, gRPC's 10 % jitter, and the removal of its endpoint everywhere.
DRAIN_SECONDS: Final = 10
# After the requests, Triton unloads its models and exits within this time.
END_SECONDS: Final = 5

_RESTRICTED: Final = f"{','.join(names.RESTRICTED_APIS)}:{names.CONTROL_HEADER}"


def count_cache_bytes(triton: Triton) -> int:
    """Return the size of Triton's response cache in bytes; 0: the spec has none."""
    size = parse_quantity(triton.response_cache.size) if triton.response_cache else None
    return math.ceil(size or 0)


def has_response_cache(triton: Triton) -> bool:
    """Return True if Triton has a response cache, by its field or by a flag in args."""
    return triton.response_cache is not None or any(re.match(CACHE_FLAGS, flag) for flag in triton.args)


def uses_rate_limiter(models: Iterable[NamedModel]) -> bool:
    """Return True if an instance group of a model has a rate limiter, which Triton ignores without its flag."""
    return any(group.rate_limiter is not None for model in models for group in model.triton.instance_groups)


def build_server_command(
    args: Sequence[str],
    grace: float = 45.0,
    cache_bytes: int = 0,
    trace_flags: Sequence[str] = (),
    *,
    rate_limiter: bool = False,
) -> list[str]:
    """Return the command of the Triton container.

    Args:
        args: the user's flags.
        grace: terminationGracePeriodSeconds of the pod.
        cache_bytes: Size of the response cache in bytes; 0: none.
        trace_flags: Those of `build_trace_flags`, words of a shell.
        rate_limiter: True if Triton's rate limiter is on.

    A shell starts it because the control key is a file with a random value in each pod. The user's `args` follow the
    flags of Conch unchanged; the shell does not interpret them.
    """
    exit_seconds = max(1, math.ceil(grace) - DRAIN_SECONDS - END_SECONDS)
    flags = [
        f"--model-repository={names.REPOSITORY_DIR}",
        "--model-control-mode=explicit",  # only the agent loads models
        f"--http-port={names.HTTP_PORT}",
        f"--grpc-port={names.GRPC_PORT}",
        f"--metrics-port={names.METRICS_PORT}",
        "--metrics-config=summary_latencies=true",  # percentiles, for gates
        f"--grpc-max-connection-age={CONNECTION_AGE_MS}",
        f"--grpc-max-connection-age-grace={1000 * max(CONNECTION_GRACE_SECONDS, exit_seconds)}",
        f"--exit-timeout-secs={exit_seconds}",  # requests in progress may finish
        f'--http-restricted-api="{_RESTRICTED}=$key"',
        f'--grpc-restricted-protocol="{_RESTRICTED}=$key"',
    ]
    if cache_bytes:
        flags.append(f"--cache-config=local,size={cache_bytes}")
    flags += trace_flags
    if rate_limiter:
        flags.append("--rate-limit=execution_count")
    key = f"{names.CONTROL_DIR}/{names.CONTROL_KEY_FILE}"
    script = f'key=$(cat {key}) && exec tritonserver {" ".join(flags)} "$@"'
    return ["/bin/sh", "-c", script, "tritonserver", *args]
