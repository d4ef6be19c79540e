"""Workers: they take keys from the queue, reconcile them, and queue them again."""

import time

import structlog
from prometheus_client import Counter, Gauge, Histogram

from conch.api.kinds import ServiceKey
from conch.queue import WorkQueue
from conch.reconcile import Reconciler
from conch.shutdown import END_SECONDS, finish
from conch.write import CallError

_results = Counter("conch_reconciles", "Reconciles, by result.", ["result"])
_seconds = Histogram(
    "conch_reconcile_seconds",
    "Time of a reconcile, calls included.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_depth = Gauge("conch_queue_depth", "Services in the queue.")
_active = Gauge("conch_queue_active", "Services that are being reconciled.")
_log = structlog.get_logger("conch.reconcile")


async def run_worker(queue: WorkQueue, reconcile: Reconciler) -> None:
    """Reconcile one key after the other until cancelled; then finish the reconcile in progress."""
    _depth.set_function(lambda: len(queue))
    _active.set_function(lambda: queue.active)
    while True:
        key = await queue.get()
        began = time.monotonic()
        with structlog.contextvars.bound_contextvars(namespace=key.namespace, service=key.name):
            try:
                result = await finish(_reconcile(queue, reconcile, key), END_SECONDS)
            finally:
                queue.done(key)
        _results.labels(result).inc()
        _seconds.observe(time.monotonic() - began)


async def _reconcile(queue: WorkQueue, reconcile: Reconciler, key: ServiceKey) -> str:
    """Reconcile a service, queue it again after an error or a wait, and return the result for the metric."""
    try:
        outcome = await reconcile(key)
    except CallError as error:
        delay = queue.retry(key, at_least=error.retry_after or 0.0)
        _log.warning("call failed", code=error.code, error=error.message, retry_seconds=round(delay, 1))
        return "error"
    except Exception:  # noqa: BLE001  an error of one service does not end the worker
        delay = queue.retry(key)
        _log.exception("reconcile failed", retry_seconds=round(delay, 1))
        return "crash"
    if outcome.rejections:
        delay = queue.retry(key, at_least=max(rejection.retry_after for rejection in outcome.rejections))
        for rejection in outcome.rejections:
            log, event = (_log.info, "refused") if rejection.final else (_log.warning, "call failed")
            log(event, object=str(rejection.ref), error=rejection.message, retry_seconds=round(delay, 1))
        if outcome.wait is not None:  # the steps of a rollout do not wait for an object of another owner
            queue.add_after(key, outcome.wait)
        return "refused" if all(rejection.final for rejection in outcome.rejections) else "error"
    queue.forget(key)
    if outcome.wait is not None:
        queue.add_after(key, outcome.wait)
    if outcome.yields:
        return "yielded"
    if outcome.wait is not None:
        return "waiting"
    return "settled"
