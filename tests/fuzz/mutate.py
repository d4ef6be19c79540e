"""Changes JSON values as a fuzzer changes bytes; coverage selects the changes to go on from."""

from __future__ import annotations

import json
import random
from typing import Any, Final

from conch_contract.parsing import parse_json

_DEEP: Final = 3000
_ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, 1e308, -0.0, "", "x", "0", "-1", "1e999", "NaN", "true"),
    *("2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "\ud800", "\x00", "a" * 5000, "é" * 70),
    *([], {}, [None], {"": None}, ["x"] * 300, "Infinity", "10Gi", "-5m", "100%", "*", "/", "..", "promote 1/1"),
)


def mutate(data: bytes, seed: int) -> bytes | None:
    """Return the JSON with one to four values changed; None: it is no JSON."""
    chance = random.Random(seed)  # noqa: S311  a fuzzer's choices
    try:
        value = parse_json(data)
    except ValueError:
        return None
    for _ in range(chance.randint(1, 4)):
        value = _change(value, chance)
    try:
        return json.dumps(value).encode()
    except (ValueError, RecursionError):
        return None


def _change(value: Any, chance: random.Random) -> Any:
    """Change the value, or one inside it."""
    inside = isinstance(value, (dict, list)) and bool(value)
    if inside and chance.random() < 0.85:
        if isinstance(value, dict):
            key = chance.choice(list(value))
            return (
                _change_key(value, key, chance)
                if chance.random() < 0.2
                else {**value, key: _change(value[key], chance)}
            )
        at = chance.randrange(len(value))
        return [*value[:at], _change(value[at], chance), *value[at + 1 :]]
    return chance.choice([_odd, _near, _nested])(value, chance)


def _change_key(value: dict[str, Any], key: str, chance: random.Random) -> dict[str, Any]:
    """Remove a key, rename it, or add one."""
    rest = {name: each for name, each in value.items() if name != key}
    return chance.choice([rest, {**rest, key + "x": value[key]}, {**value, chance.choice(list(value)): value[key]}])


def _odd(_: Any, chance: random.Random) -> Any:
    return chance.choice(_ODD)


def _near(value: Any, chance: random.Random) -> Any:
    """Return a value of the same kind."""
    if isinstance(value, str) and value:
        at = chance.randrange(len(value))
        return value[:at] + chance.choice(["", "0", "-", " ", "\n", "\u202e", value[at] * 40]) + value[at + 1 :]
    if isinstance(value, (int, float)):
        return chance.choice([value + 1, -value, value * 1000, str(value)])
    if isinstance(value, list):
        return value * 3
    return [value]


def _nested(value: Any, chance: random.Random) -> Any:
    """Return the value in some lists, or in very many."""
    deep: Any = value
    for _ in range(chance.choice([1, 2, _DEEP if chance.random() < 0.02 else 3])):
        deep = [deep]
    return deep
