"""Text that others write: what is stored of it, how it is sent, and a status that is stored without it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conch.api import Condition, RolloutStatus, Status
from conch.api.analysis import GateStatus
from conch.api.reduction import reductions
from conch.api.text import LIMIT, clean, read_json
from conch.observe import Finding
from conch.write.encoding import encode

# hypothesis leaves surrogates out of text() unless they are included.
ANY = st.text(st.characters(exclude_categories=()), max_size=40)
HOSTILE = ["😀", "\ud83d", "\x00", "\x1b[31m", "\x7f\x85\u2028\ufeff\uffff", "\U0010ffff", "é" * 5000]


@given(ANY)
def test_a_body_is_sent_as_utf_8_and_means_the_same(text: str) -> None:
    sent = encode({"a": text})
    whole = "".join("\N{REPLACEMENT CHARACTER}" if 0xD800 <= ord(letter) < 0xE000 else letter for letter in text)
    assert json.loads(sent.decode()) == {"a": whole}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_body_is_yaml(text: str) -> None:
    assert yaml.safe_load(encode({"a": text})) == {"a": text.replace("\ud83d", "\N{REPLACEMENT CHARACTER}")}


@given(ANY, st.integers(8, 50))
def test_a_clean_text_fits_and_stays_as_it_is(text: str, limit: int) -> None:
    cleaned = clean(text, limit)
    assert len(cleaned.encode()) <= limit
    assert clean(cleaned, limit) == cleaned
    assert cleaned.isprintable() or not any(ord(letter) < 32 and letter not in "\t\n" for letter in cleaned)


def test_json_of_others_is_clean_to_its_last_text() -> None:
    assert read_json(r'{"a": ["\ud83d", {"b\u0000": "\ud83d\ude00"}]}') == {"a": ["�", {"b�": "😀"}]}
    assert len(read_json(json.dumps("x" * 100_000))) < LIMIT
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json("[" * 100_000)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_in_a_status_is_read_back_unchanged(text: str) -> None:
    """Else the next status differs from the stored one for good, and every reconcile is a write."""
    finding = Finding("LoadFailed", text)
    condition = Condition(
        type="Ready", status="False", reason=text, message=text, last_transition_time="2026-01-01T00:00:00Z"
    )
    status = Status(conditions=(condition,), rollout=_rollout(finding.message))
    assert Status.lenient(json.loads(encode(status.to_wire()))) == status


def _rollout(message: str) -> RolloutStatus:
    return RolloutStatus(revision="a", since="2026-01-01T00:00:00Z", message=message)


def test_reductions_keep_what_a_rollout_needs() -> None:
    gate = GateStatus(
        name="errors", verdict="Inconclusive", failures=2, evaluated_at="2026-01-01T00:00:00Z", message="😀"
    )
    rollout = RolloutStatus(
        revision="magika-b",
        state="Progressing",
        step=2,
        since="2026-01-01T00:00:00Z",
        started="2026-01-01T00:00:00Z",
        weight=50,
        reason="Inconclusive",
        message="😀" * 500,
        gates=(gate,),
        request="promote 7",
    )
    status = Status(observed_generation=3, stable="magika-a", candidate="magika-b", weight=50, rollout=rollout)
    brief, bare, least = [Status.lenient(reduced) for reduced in reductions(status.to_wire())]
    assert brief.rollout is not None
    assert brief.rollout.message.isascii()
    assert len(brief.rollout.message) <= 256
    memory = {"message": "", "gates": (gate.model_copy(update={"message": ""}),)}
    for reduced in (bare, least):
        assert reduced == status.model_copy(update={"rollout": rollout.model_copy(update=memory)})
    assert "😀" not in json.dumps(bare.to_wire(), ensure_ascii=False)


def test_a_reduced_status_has_what_the_crd_requires() -> None:
    from conch.api.crd import schema  # noqa: PLC0415  only this test reads it

    dropped = {"message", "models", "url", "value", "bound", "p50", "p99", "requestsPerSecond"}

    def required(node: dict[str, Any]) -> set[str]:
        below = [*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])]
        return set(node.get("required", ())).union(*(required(child) for child in below))

    assert required(schema()["properties"]["status"]) & dropped == set()
