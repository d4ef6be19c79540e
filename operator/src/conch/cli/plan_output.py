"""The output of `kubectl conch plan`, as text and as a value for -o json and yaml."""

from collections.abc import Sequence
from typing import Any, Final

from conch.api import ConfigValue
from conch.cli.preview import Preview, PreviewStep, TrackPreview
from conch.cli.printing import Table, Text
from conch.plan import ApplyRejected
from conch.triton import ConfiguredValue
from conch_contract import ConfigOrigin

_CONFIGURED: Final = (
    "Triton's configuration that the manifest sets; all other values come from config.pbtxt or from Triton:"
)
_LONGEST_VALUE: Final = 80  # characters of a value of Triton's configuration


def build_plan_value(preview: Preview) -> dict[str, Any]:
    """Return the value for -o json and yaml, with the manifests."""
    return {
        "name": preview.service.name,
        "namespace": preview.service.namespace,
        **_build_track_value(preview.main),
        "variants": [
            {"name": track.variant, "requests": track.requests, **_build_track_value(track)}
            for track in preview.variants
        ],
        "removedVariants": list(preview.removed_variants),
        "rejections": [_build_rejection_value(rejection) for rejection in preview.rejections],
        "writes": [
            {
                "row": write.row,
                "action": write.action,
                "kind": write.kind,
                "name": write.name,
                "manifest": write.manifest,
            }
            for write in preview.writes
        ],
        "conditions": [
            dict(zip(("type", "status", "reason", "message"), condition, strict=True))
            for condition in preview.conditions
        ],
    }


def _build_track_value(track: TrackPreview) -> dict[str, Any]:
    return {
        "revision": {"name": track.revision, "number": track.number, "known": track.known},
        "serving": track.serving,
        "message": track.message,
        "budget": track.budget,
        "configured": [
            {
                "model": each.model,
                "field": each.field,
                "value": each.value,
                "setBy": each.set_by,
                **({"inUse": in_use.to_wire()} if (in_use := track.in_use.get((each.model, each.field))) else {}),
            }
            for each in track.configured
        ],
        "notSetAnyMore": [{"model": model, "inUse": value.to_wire()} for model, value in _list_not_set_any_more(track)],
        "warnings": [{"reason": reason, "message": message} for reason, message in track.warnings],
        "steps": [
            {"number": step.number, "step": step.step, "pods": step.pods, "waits": step.waits, "state": step.state}
            for step in track.steps
        ],
    }


def build_plan_text(preview: Preview) -> Text:
    """Return the text."""
    text: list[str | Table] = [f"{preview.service}: {preview.main.message}"]
    text += [f"Variant {track.variant} ({track.requests}): {track.message}" for track in preview.variants]
    budgets = [track.budget for track in (preview.main, *preview.variants) if track.budget]
    text += ["", "GPUs:", *(f"  {budget}" for budget in budgets)] if budgets else []
    text += _build_configuration_text((preview.main, *preview.variants))
    text += [
        f"Variant {variant} is not in the spec any more: its pods are deleted once no request can reach them."
        for variant in preview.removed_variants
    ]
    if preview.rejections:
        text += ["", "Rejected:", *(f"  {rejection.reason}: {rejection.message}" for rejection in preview.rejections)]
    if preview.writes:
        rows = tuple((str(write.row), write.action, write.kind, write.name) for write in preview.writes)
        text += ["", "The operator's next writes, row after row:", Table(("ROW", "ACTION", "KIND", "NAME"), rows)]
    else:
        text += ["", "The operator would write nothing."]
    tracks = (preview.main, *preview.variants)
    # Predictor and variants follow the same steps, mostly with as many pods: equal steps are printed once.
    for steps in dict.fromkeys(track.steps for track in tracks):
        owners = [_describe_track(track) for track in tracks if track.steps == steps]
        text += ["", *_build_steps_text(steps, f" ({', '.join(owners)})" if preview.variants else "")]
    return text


def _build_configuration_text(tracks: Sequence[TrackPreview]) -> list[str]:
    """Return the lines about Triton's configuration: the values that the manifest sets, and the warnings of pods."""
    lines, warnings = [], []
    for track in tracks:
        prefix = f"Variant {track.variant}: " if track.variant else ""
        by_model: dict[str, list[str]] = {}
        for each in track.configured:
            value = _format_configured(each, track.in_use.get((each.model, each.field)))
            by_model.setdefault(each.model, []).append(value)
        for model, in_use in _list_not_set_any_more(track):
            by_model.setdefault(model, []).append(f"{in_use.field} not set any more, now {_shorten(in_use.value)}")
        for model, values in by_model.items():
            lines += [f"  {prefix}{model}:", *(f"    {value}" for value in values)]
        warnings += [f"{prefix}{reason}: {message}" for reason, message in track.warnings]
    return [*(["", _CONFIGURED, *lines] if lines else []), *warnings]


def _list_not_set_any_more(track: TrackPreview) -> list[tuple[str, ConfigValue]]:
    """Return the values that the manifest of the revision that serves has set, by model, and this one does not.

    What `triton.config` of this one sets is not known before the agent has read it, so that of its model none is
    returned.
    """
    configured = {(each.model, each.field) for each in track.configured}
    return [
        (model, value)
        for (model, field), value in track.in_use.items()
        if value.origin == ConfigOrigin.SPEC and configured.isdisjoint({(model, field), (model, "")})
    ]


def _format_configured(value: ConfiguredValue, in_use: ConfigValue | None) -> str:
    """Return a value with the field that sets it, and what Triton uses now where that is another one.

    >>> value = ConfiguredValue("max_batch_size", "8", "triton.maxBatchSize")
    >>> _format_configured(value, None)
    'max_batch_size 8 (triton.maxBatchSize)'
    >>> _format_configured(value, ConfigValue(field="max_batch_size", value="4", origin="File"))
    'max_batch_size 8 (triton.maxBatchSize), now 4 (File)'
    """
    new = _shorten(value.value)  # as agents shorten what they report
    text = " ".join(filter(None, (value.field, new, f"({value.set_by})")))
    return f"{text}, now {_shorten(in_use.value)} ({in_use.origin})" if in_use and in_use.value != new else text


def _shorten(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 1]}…"


def _describe_track(track: TrackPreview) -> str:
    return f"variant {track.variant}" if track.variant else "predictor"


def _build_steps_text(steps: Sequence[PreviewStep], suffix: str) -> Text:
    rows = tuple(
        (str(step.number), step.step, "" if step.pods is None else str(step.pods), step.waits) for step in steps
    )
    if not any(step.state for step in steps):
        return [f"The steps of later changes{suffix}:", Table(("NUMBER", "STEP", "PODS", "WAITS"), rows)]
    with_states = tuple((*row, step.state) for row, step in zip(rows, steps, strict=True))
    return [f"The steps of this rollout{suffix}:", Table(("NUMBER", "STEP", "PODS", "WAITS", "STATE"), with_states)]


def _build_rejection_value(rejection: ApplyRejected) -> dict[str, str]:
    return {"object": str(rejection.ref), "reason": rejection.reason, "message": rejection.message}
