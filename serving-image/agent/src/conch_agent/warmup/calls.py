"""The calls of a warm-up to Triton, in a pod."""

from __future__ import annotations

from collections.abc import Sequence

from conch_agent.decryption import find_home
from conch_agent.layout import SERVED
from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.triton import ConnectionLostError, TritonError
from conch_agent.warmup.infer import Endpoint
from conch_agent.warmup.plan import plan_calls
from conch_agent.warmup.run import WarmupRun
from conch_contract import ModelSource, Warmup, WarmupReport


async def warm_up_pod(source: ModelSource, versions: Sequence[int], settings: Settings) -> WarmupReport:
    """Warm all versions of a model in this pod's Triton.

    Args:
        source: The model in the manifest.
        versions: The versions that Triton serves.
        settings: The agent's settings.

    Returns:
        The report, also of a failure.

    Raises:
        TritonUnavailableError: No connection to Triton can be opened.
    """
    warmup = source.warmup or Warmup()
    files = find_home(source, settings) / SERVED
    try:
        async with Endpoint(settings.triton_http, source.name) as endpoint:
            calls, concurrency = await plan_calls(source, versions, endpoint, settings, files)
    except Failure as failure:
        return WarmupReport(reason=failure.reason, message=failure.message)
    except ConnectionLostError as error:
        message = f"Triton does not describe {source.name}: {error}"
        return WarmupReport(reason=Reason.WARMUP_UNREACHABLE, message=message)
    except TritonError as error:
        return WarmupReport(reason=Reason.WARMUP_FAILED, message=f"Triton does not describe {source.name}: {error}")
    endpoint = Endpoint(settings.triton_http, source.name, concurrency)
    return await WarmupRun(warmup, source.name, endpoint, concurrency=concurrency).run(calls, warmup.timeout_seconds)
