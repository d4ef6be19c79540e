"""The warm-up of one model in one pod, before the pod reports ready."""

from __future__ import annotations

from collections.abc import Sequence

from conch_agent.reasons import Failure, Reason
from conch_agent.settings import Settings
from conch_agent.triton import ConnectionLost, Refused
from conch_agent.warmup.course import Course
from conch_agent.warmup.infer import Endpoint
from conch_agent.warmup.plan import plan
from conch_contract import ModelSource, Warmup, WarmupReport


async def warm_pod(source: ModelSource, versions: Sequence[int], settings: Settings) -> WarmupReport:
    """Warm every version on this pod's Triton. Raises TritonGone where no connection to it can be opened."""
    warmup = source.warmup or Warmup()
    files = settings.downloads / source.name / "files"
    try:
        async with Endpoint(settings.triton_http, source.name) as endpoint:
            calls, at_once = await plan(source, versions, endpoint, settings, files)
    except Failure as failure:
        return WarmupReport(reason=failure.reason, message=failure.message)
    except ConnectionLost as lost:
        return WarmupReport(reason=Reason.WARMUP_UNREACHABLE, message=f"Triton does not describe {source.name}: {lost}")
    except Refused as refusal:
        return WarmupReport(reason=Reason.WARMUP_FAILED, message=f"Triton does not describe {source.name}: {refusal}")
    endpoint = Endpoint(settings.triton_http, source.name, at_once)
    return await Course(warmup, source.name, endpoint, at_once=at_once).run(calls, warmup.timeout_seconds)
