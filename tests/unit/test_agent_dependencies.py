"""The models that a model calls: read from its configuration and its program, which is never run."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import ModelConfig

from conch_agent.dependencies import describe_missing_models, find_bls_callees, find_callees, makes_calls


@pytest.mark.parametrize(
    ("program", "callees"),
    [
        ("pb_utils.InferenceRequest(model_name='a', inputs=[])", {"a"}),
        ("pb_utils.InferenceRequest(inputs=[], **options)", set()),
        (
            "class M:\n  def initialize(self, args):\n    self.to = 'a'\n  def f(self):\n    R(model_name=self.to)",
            set(),
        ),
        ("self.to = 'a'\nawait_ = InferenceRequest(model_name=self.to).async_exec()", {"a"}),
        ("to = 'a'\nto = 'b'\nInferenceRequest(model_name=to)", set()),
        ("for to in names:\n  InferenceRequest(model_name=to)", set()),
        ("# InferenceRequest(model_name='a')", set()),
        ("print 'python 2'", set()),
        ("\0", set()),
    ],
)
def test_callees_are_found_where_the_program_contains_their_name(program: str, callees: set[str]) -> None:
    assert find_bls_callees(program.encode()) == callees


def test_steps_and_calls_add_up_without_the_model_itself(tmp_path: Path) -> None:
    config = ModelConfig(name="m")
    text_format.Parse("ensemble_scheduling { step [{ model_name: 'b' }, { model_name: 'm' }] }", config)
    program = tmp_path / "model.py"
    program.write_text("InferenceRequest(model_name='a')")
    assert find_callees(config, [program]) == ("a", "b")
    program.write_text("#" * (1024 * 1024) + "\nInferenceRequest(model_name='a')")
    assert find_callees(config, [program]) == ("b",)


@pytest.mark.parametrize(
    ("program", "is_caller"),
    [
        ("pb_utils.InferenceRequest(model_name='a', inputs=[])", True),
        ("for to in names:\n  InferenceRequest(model_name=to)", True),
        ("print 'python 2'; InferenceRequest(model_name=to)", True),
        ("def execute(self, requests):\n  '''requests: a list of pb_utils.InferenceRequest'''", False),
        ("\0", False),
    ],
)
def test_calls_are_found_whatever_the_name_of_what_is_called(program: str, is_caller: bool, tmp_path: Path) -> None:
    file = tmp_path / "lib.py"
    file.write_text(program)
    assert makes_calls([file]) == is_caller


def test_the_sentence_names_all_and_the_way_out() -> None:
    sentence = describe_missing_models("m", ("a", "b"), ())
    assert sentence.startswith("Model 'm' calls 'a' and 'b', and this InferenceService serves one model.")
    assert "modelFormat.name to repository" in sentence
    sentence = describe_missing_models("m", ("a",), [f"n{number:02}" for number in range(20)])
    assert sentence.startswith(
        "Model 'm' calls 'a', which this InferenceService does not serve; beside 'm' it serves n00,"
    )
    assert "n15 and 4 more. Add what is missing to its models" in sentence
