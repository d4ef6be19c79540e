"""The command line of tritonserver in a serving pod.

Flags as `tritonserver --help` gives them (2.51 and later); what each is for stands beside it.
"""

import math
from collections.abc import Sequence
from typing import Final

from conch_contract import names

# Long-lived gRPC channels are asked to reconnect at this age, and so find other pods and leave dying ones.
# A flag in the user's args wins: Triton takes the last one. Proxies written in Go lose a request now and then when
# they are asked to reconnect (docs/rollouts.md, "gRPC through Traefik").
CONNECTION_AGE_MS: Final = 4_000
# The calls and streams of such a connection go on for so long, at least. A pod that goes ends them sooner.
CONNECTION_GRACE_SECONDS: Final = 3_600
# A pod that is to go answers on for so long: age, gRPC's 10 % jitter, and the removal of its endpoint everywhere.
DRAIN_SECONDS: Final = 10
# After the requests, Triton unloads its models and ends within this time.
END_SECONDS: Final = 5

_RESTRICTED: Final = f"{','.join(names.RESTRICTED_APIS)}:{names.CONTROL_HEADER}"


def server_command(args: Sequence[str], grace: float = 45.0) -> list[str]:
    """Return the command of the Triton container.

    Args:
        args: the user's flags.
        grace: terminationGracePeriodSeconds of the pod.

    A shell starts it, for one reason: the control key is random in each pod, and it is a file.
    What the user typed in `args` is passed behind ours as it stands, never through the shell.
    """
    exit_seconds = max(1, math.ceil(grace) - DRAIN_SECONDS - END_SECONDS)
    flags = [
        f"--model-repository={names.REPOSITORY_DIR}",
        "--model-control-mode=explicit",  # nothing loads that the agent did not load
        f"--http-port={names.HTTP_PORT}",
        f"--grpc-port={names.GRPC_PORT}",
        f"--metrics-port={names.METRICS_PORT}",
        "--metrics-config=summary_latencies=true",  # percentiles, which gates ask for
        f"--grpc-max-connection-age={CONNECTION_AGE_MS}",
        f"--grpc-max-connection-age-grace={1000 * max(CONNECTION_GRACE_SECONDS, exit_seconds)}",
        f"--exit-timeout-secs={exit_seconds}",  # what a pod that goes has begun may finish
        f'--http-restricted-api="{_RESTRICTED}=$key"',
        f'--grpc-restricted-protocol="{_RESTRICTED}=$key"',
    ]
    key = f"{names.CONTROL_DIR}/{names.CONTROL_KEY_FILE}"
    script = f'key=$(cat {key}) && exec tritonserver {" ".join(flags)} "$@"'
    return ["/bin/sh", "-c", script, "tritonserver", *args]
