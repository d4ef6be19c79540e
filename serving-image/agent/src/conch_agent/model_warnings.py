"""Warnings about a model that is served: overridden configuration, another name, missing callees."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from conch_agent.places import without_query
from conch_agent.reasons import WarningReason
from conch_agent.repository_model import RepositoryModel
from conch_agent.triton import LONGEST_MESSAGE
from conch_contract import ModelWarning
from conch_contract.report import SEQUENCE_STATE_MESSAGE, Origin
from conch_contract.sentences import join_words

_LONGEST: Final = 1000  # characters of a message
_MOST_NAMES: Final = 8  # in a message


NO_CACHE: Final = (
    "The model's configuration has response_cache, and Triton has no response cache: each request runs the model. Set "
    "spec.predictor.triton.responseCache, or remove response_cache."
)
UNUSED_CACHE: Final = (
    "Triton has a response cache, and no model of the pod uses it. Write response_cache { enable: true } into "
    "config.pbtxt or triton.config of a model, or remove responseCache from spec.predictor.triton."
)


def build_warnings(
    name: str,
    model: RepositoryModel,
    missing: str,
    *,
    changed_warmup: str = "",
    response_cache: str = "",
    trace_rates: str = "",
    suspicion: str = "",
) -> tuple[ModelWarning, ...]:
    """Return the warnings of a model.

    Args:
        name: The model's name in Triton.
        model: The model in the repository.
        missing: The message about models that it calls and that its Triton does not serve; empty: there are none.
        changed_warmup: Name of the ConfigMap of warm-up requests, if the revision's first pod had other requests.
        response_cache: The message about a response cache of which only half is configured; empty: there is none.
        trace_rates: The message about trace rates of models that the pod does not have; empty: there are none.
        suspicion: The message about several models of which one ends Triton; empty: there is none.
    """
    sentences = {
        WarningReason.CONFIG_OVERRIDDEN: describe_overrides(model),
        WarningReason.MODEL_RENAMED: _describe_renaming(name, model.file_name),
        WarningReason.CALLEE_MISSING: f"{missing} Requests that need them fail." if missing else "",
        WarningReason.SEQUENCE_STATE: SEQUENCE_STATE_MESSAGE if model.sequences else "",
        WarningReason.WARMUP_CHANGED: describe_changed_warmup(changed_warmup),
        WarningReason.RESPONSE_CACHE_OFF: response_cache,
        WarningReason.TRACE_RATE_UNUSED: trace_rates,
        WarningReason.CRASH_SUSPECTED: suspicion,
        WarningReason.CACHE_UNUSED: describe_unused_cache(model.cache_problem),
        WarningReason.SERVED_FROM_MIRROR: describe_detour(model),
    }
    return tuple(
        ModelWarning(reason=reason, message=sentence[:_LONGEST]) for reason, sentence in sentences.items() if sentence
    )


def build_memory_warning(name: str) -> ModelWarning:
    """Return the warning about a model whose content of before was unloaded first.

    Args:
        name: The model's name in Triton.
    """
    message = (
        f"Memory does not hold two contents of model '{name}': this pod unloaded the old one before it loaded the new"
        " one. It got no requests meanwhile; the way back takes a load, too."
    )
    return ModelWarning(reason=WarningReason.MEMORY_HOLDS_ONE, message=message)


def build_not_served_warning(name: str, cause: str, *, required: bool) -> ModelWarning:
    """Return the warning about a model that has failed, and without which its pod is ready.

    Args:
        name: The model's name in Triton.
        cause: The message of its failure.
        required: True if the model is required.
    """
    message = f"Model {name}{'' if required else ', which is not required,'} is not served: {cause}"
    return ModelWarning(reason=WarningReason.MODEL_NOT_SERVED, message=message[:LONGEST_MESSAGE])


def describe_unused_cache(problem: str) -> str:
    """Return the message about a cache that a pod has to do without; empty for an empty problem.

    Args:
        problem: The reason, as a sentence without a full stop.
    """
    if not problem:
        return ""
    return f"The claim of spec.predictor.cache is not used: {problem}. This pod has fetched the model for itself."


def describe_detour(model: RepositoryModel) -> str:
    """Return the message about files that are from a mirror; empty for others.

    Args:
        model: The model in the repository.
    """
    if model.origin != Origin.MIRROR:
        return ""
    return f"The files are from {without_query(model.uri)}, one of storage.mirrors: {model.detour}"


def describe_overrides(model: RepositoryModel) -> str:
    """Return the message about fields of config.pbtxt that the manifest overrides; empty where there are none.

    Args:
        model: The model in the repository.
    """
    return f"The InferenceService overrides config.pbtxt: {'; '.join(model.overrides)}." if model.overrides else ""


def describe_changed_warmup(config_map: str) -> str:
    """Return the message about a ConfigMap of warm-up requests that has changed; empty for an empty name.

    Args:
        config_map: Name of the ConfigMap.
    """
    if not config_map:
        return ""
    return (
        f"The ConfigMap {config_map!r} has changed since a pod of this revision was first ready: this pod was warmed "
        "with other requests. Restore it, or write other requests into a ConfigMap of another name."
    )


def describe_unknown_trace_rates(unknown: Collection[str], models: Collection[str]) -> str:
    """Return the message about names with a trace rate that no model has; empty where there are none.

    Args:
        unknown: The names.
        models: Names of the pod's models.
    """
    if not unknown:
        return ""
    shown = sorted(models)[:_MOST_NAMES]
    more = f" and {len(models) - len(shown)} more" if len(models) > len(shown) else ""
    return (
        f"spec.predictor.triton.tracing.modelRates has {join_words(sorted(unknown)[:_MOST_NAMES], 'and')}, and the pod"
        f" no model of this name; it has {join_words(shown, 'and')}{more}. Correct the name, or remove it."
    )


def _describe_renaming(name: str, file_name: str) -> str:
    if not file_name:
        return ""
    return (
        f"config.pbtxt names the model '{file_name}'; Triton serves it as '{name}' (/v2/models/{name}). To keep the "
        f"name, set model.name to '{file_name}'; of several models the name of one, or of its folder in the repository."
    )
