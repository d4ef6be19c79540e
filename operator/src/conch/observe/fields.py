"""Readers of fields that other field managers can write. A value of an unexpected type is read as absent.

The API server validates an object by the schema of its kind, not by what Conch writes: a route of another shape, a
ControllerRevision without data and an annotation with any text are valid.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from conch.api.quantity import parse_quantity
from conch.api.times import parse_time

_NOTHING: Final[Mapping[str, Any]] = {}
_DIGITS: Final = 18  # of a number that fits 64 bits
# structured-merge-diff, fieldpath: .name, [0], [name="a"], [port=80,protocol="TCP"].
_SEGMENT: Final = re.compile(r"\.(?P<field>[^.\[]+)|\[(?P<index>\d+)\]|\[(?P<keys>[^\]]+)\]")
_KEY: Final = re.compile(r'(\w+)=("[^"]*"|[^,]+)')


def mapping(value: Any) -> Mapping[str, Any]:
    """Return the mapping; empty: the value is not a mapping.

    >>> mapping({"a": 1}), mapping(None), mapping(["a"])
    ({'a': 1}, {}, {})
    """
    return value if isinstance(value, Mapping) else _NOTHING


def mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the mappings of a list, such as containers, rules or conditions.

    >>> list(mappings([{"a": 1}, "b"])), list(mappings(None))
    ([{'a': 1}], [])
    """
    yield from (item for item in value if isinstance(item, Mapping)) if isinstance(value, list | tuple) else ()


def text(value: Any) -> str:
    """Return the text; empty: the value is not a text.

    >>> text("a"), text(None), text(["a"])
    ('a', '', '')
    """
    return value if isinstance(value, str) else ""


def number(value: Any, default: int = 0) -> int:
    """Return the number of a field or an annotation, an integer from 0 up; the default for any other value.

    >>> number(3), number("3"), number("three"), number(None, 1), number(True), number(-1)
    (3, 3, 0, 1, 0, 0)
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default


def moment(value: Any) -> float | None:
    """Return the seconds since the epoch of an RFC 3339 time; None: the value is not a time.

    >>> moment("1970-01-01T00:00:07Z"), moment("yesterday"), moment(None)
    (7.0, None, None)
    """
    try:
        return parse_time(value)
    except (TypeError, ValueError, OverflowError):
        return None


def labels_of(body: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the labels of an object."""
    return mapping(mapping(body.get("metadata")).get("labels"))


def annotations_of(body: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the annotations of an object."""
    return mapping(mapping(body.get("metadata")).get("annotations"))


def value_at(body: Any, path: str) -> Any:
    """Return the value of an object at a path in the API server's notation; None: it has none.

    >>> value_at({"spec": {"env": [{"name": "A", "value": 1}]}}, '.spec.env[name="A"].value')
    1
    >>> value_at({"spec": {"metrics": ["cpu"]}}, ".spec.metrics[0]"), value_at({}, ".spec.replicas")
    ('cpu', None)
    """
    for segment in _SEGMENT.finditer(path):
        if segment["field"]:
            body = mapping(body).get(segment["field"])
        elif segment["index"]:
            body = next(iter(body[int(segment["index"]) :]), None) if isinstance(body, list | tuple) else None
        else:
            keys = {key: value.strip('"') for key, value in _KEY.findall(segment["keys"])}
            matches = (item for item in mappings(body) if all(str(item.get(key)) == keys[key] for key in keys))
            body = next(matches, None)
    return body


# Fields that hold a quantity, or quantities by resource.
_QUANTITIES: Final = frozenset({"sizeLimit", "divisor", "averageValue", "limits", "requests"})


def unreadable_quantities(body: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each quantity in an object that Kubernetes cannot read.

    >>> list(unreadable_quantities({"volumes": [{"emptyDir": {"sizeLimit": "1 Gi"}}], "limits": {"cpu": 1}}))
    [('.volumes[0].emptyDir.sizeLimit', '1 Gi')]
    """
    items = body.items() if isinstance(body, Mapping) else ()
    for key, value in items:
        place = f"{path}.{key}"
        amounts = value if isinstance(value, Mapping) else {"": value}
        if key in _QUANTITIES:
            bad = {name: amount for name, amount in amounts.items() if parse_quantity(amount) is None}
            yield from ((f"{place}.{name}" if name else place, amount) for name, amount in bad.items())
        else:
            yield from unreadable_quantities(value, place)
    for index, item in enumerate(body if isinstance(body, list | tuple) else ()):
        yield from unreadable_quantities(item, f"{path}[{index}]")
