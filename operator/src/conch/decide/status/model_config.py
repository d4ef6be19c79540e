"""The configurations of a revision's models in its status, as one of its pods reports them."""

from collections.abc import Iterable, Sequence
from typing import Final

from conch.api import ConfigValue, ModelStatus
from conch.api.text import clean
from conch_contract import ModelReport

_MAX_VALUES: Final = 16  # of a model
_MAX_VALUES_OF_REVISION: Final = 64
_LIMIT: Final = 256  # bytes of a text; an agent reports at most 120 characters


def build_model_config(reports: Iterable[ModelReport], before: ModelStatus | None) -> tuple[ConfigValue, ...]:
    """Return the configuration of a model: that of its first pod that reports one, or the previous one.

    Args:
        reports: of the model, in the order of its pods' names.
        before: its previous status; None: there is none.
    """
    reported = next((report.config for report in reports if report.config), None)
    if reported is None:
        return before.config if before is not None else ()
    return tuple(
        ConfigValue(field=clean(each.field, _LIMIT), value=clean(each.value, _LIMIT), origin=clean(each.origin, _LIMIT))
        for each in reported[:_MAX_VALUES]
    )


def limit_configs(models: Sequence[ModelStatus], entry: str) -> tuple[ModelStatus, ...]:
    """Return models with at most 64 values of configurations: that of the entry first, then in the order of names.

    The order does not depend on the state of a model, so that one that fails changes no other. A configuration that
    does not fit is left out as a whole.

    Args:
        models: of the revision, those that the status has.
        entry: name of the model that clients call.
    """
    left, omitted = _MAX_VALUES_OF_REVISION, set()
    for model in sorted(models, key=lambda model: (model.name != entry, model.name)):
        if len(model.config) > left:
            omitted.add(model.name)
        else:
            left -= len(model.config)
    return tuple(model.model_copy(update={"config": ()}) if model.name in omitted else model for model in models)
