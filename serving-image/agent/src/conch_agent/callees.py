"""The models of a pod that call one another: which ones wait, and for which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from conch_agent.dependencies import describe_missing_models, find_path
from conch_agent.pod_model import Loadable
from conch_agent.reasons import Failure, Reason
from conch_agent.triton import RepositoryIndex
from conch_contract import ModelSource


def find_missing(callees: Iterable[str], index: RepositoryIndex) -> tuple[str, ...]:
    """Return the models that Triton does not serve.

    Args:
        callees: Names of models.
        index: Triton's repository index.
    """
    return tuple(name for name in callees if all(version.state != "READY" for version in index.get(name, ())))


def describe_missing(name: str, missing: tuple[str, ...], models: Iterable[str]) -> str:
    """Return the message about models that a model calls and that Triton does not serve; empty: there are none.

    Args:
        name: Name of the model.
        missing: Names of the models that it calls.
        models: Names of the models of the manifest.
    """
    return describe_missing_models(name, missing, sorted(set(models) - {name})) if missing else ""


def find_needed(entry: ModelSource | None, models: Mapping[str, Loadable]) -> frozenset[str]:
    """Return the models without which a pod is not ready: the entry, and the steps of ensembles, which wait for them.

    Args:
        entry: The model that clients call.
        models: The models of the manifest by name.
    """
    steps = (step for model in models.values() for step in model.steps)
    return frozenset((*steps, entry.name if entry else ""))


def find_awaited(name: str, models: Mapping[str, Loadable], index: RepositoryIndex) -> tuple[str, ...]:
    """Return the models that a model calls and that Triton has to serve before that is loaded.

    Models that call one another do not wait for one another: a Python model needs its callees for requests only.

    Args:
        name: Name of the model.
        models: The models of the manifest by name.
        index: Triton's repository index.

    Raises:
        Failure: ModelMissing, or ModelCycle for an ensemble, which Triton loads after its steps.
    """
    steps, callees = models[name].steps, models[name].callees
    missing = tuple(step for step in find_missing(callees, index) if step in steps and step not in models)
    if missing:
        raise Failure(Reason.MODEL_MISSING, describe_missing(name, missing, models))
    for step in steps:
        if path := find_path(lambda each: models[each].steps if each in models else (), step, name):
            way = " → ".join((name, *path))
            raise Failure(Reason.MODEL_CYCLE, f"Ensemble '{name}' calls itself: {way}. Remove one of these steps.")

    def is_cyclic(callee: str) -> bool:
        return bool(find_path(lambda each: models[each].callees if each in models else (), callee, name))

    awaited = (callee for callee in callees if callee in models and not models[callee].is_current)
    return tuple(
        callee for callee in awaited if callee in steps or not (models[callee].is_left_out or is_cyclic(callee))
    )
