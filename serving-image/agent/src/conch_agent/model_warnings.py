"""What a user may not expect of a model that is served: overridden configuration, another name, missing callees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from conch_agent.dependencies import describe_missing_models
from conch_agent.prepare import Laid
from conch_agent.reasons import WarningReason
from conch_contract import ModelWarning
from conch_contract.report import SEQUENCE_STATE_MESSAGE

_LONGEST: Final = 1000  # characters of a message


def build_warnings(name: str, laid: Laid, missing: Sequence[str], changed_warmup: str = "") -> tuple[ModelWarning, ...]:
    """Return the warnings of a model.

    Args:
        name: The model's name in Triton.
        laid: The model as it is laid out.
        missing: Models that it calls and that its Triton does not serve.
        changed_warmup: The ConfigMap of warm-up requests, where it has others than those of the revision's first pod.
    """
    sentences = {
        WarningReason.CONFIG_OVERRIDDEN: describe_overrides(laid),
        WarningReason.MODEL_RENAMED: _renamed(name, laid.file_name),
        WarningReason.CALLEE_MISSING: f"{describe_missing_models(name, missing)} Requests that need them fail."
        if missing
        else "",
        WarningReason.SEQUENCE_STATE: SEQUENCE_STATE_MESSAGE if laid.sequences else "",
        WarningReason.WARMUP_CHANGED: describe_changed_warmup(changed_warmup),
    }
    return tuple(
        ModelWarning(reason=reason, message=sentence[:_LONGEST]) for reason, sentence in sentences.items() if sentence
    )


def describe_overrides(laid: Laid) -> str:
    """Return the sentence about fields of config.pbtxt that the manifest overrides; empty where there are none."""
    return f"The InferenceService overrides config.pbtxt: {'; '.join(laid.overrides)}." if laid.overrides else ""


def describe_changed_warmup(config_map: str) -> str:
    """Return the sentence about a ConfigMap of warm-up requests that has changed; empty for an empty name."""
    if not config_map:
        return ""
    return (
        f"The ConfigMap {config_map!r} has changed since a pod of this revision was first ready: this pod was warmed "
        "with other requests. Restore it, or write other requests into a ConfigMap of another name."
    )


def _renamed(name: str, file_name: str) -> str:
    if not file_name:
        return ""
    return (
        f"config.pbtxt names the model '{file_name}'; Triton serves it as '{name}' (/v2/models/{name}). To keep the "
        f"name, set spec.predictor.model.name to '{file_name}'."
    )
