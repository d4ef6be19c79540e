"""What Prometheus' HTTP API may answer, word for word, and what is made of it."""

from __future__ import annotations

import pytest

from conch.observe.measured import Answer
from conch.signals.prometheus import read_answer

NUMBERS: list[tuple[str, float]] = [
    ('{"status":"success","data":{"resultType":"scalar","result":[1700000000.1,"0.25"]}}', 0.25),
    ('{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1700000000,"3"]}]}}', 3.0),
    (
        (
            '{"status":"success","warnings":["slow"],"data":{"resultType":"vector","result":'
            '[{"metric":{"pod":"a"},"value":[1700000000,"+Inf"]}]}}'
        ),
        float("inf"),
    ),
]
SENTENCES: list[tuple[str, int, str]] = [
    ('{"status":"success","data":{"resultType":"vector","result":[]}}', 200, "the query answers nothing"),
    (
        (
            '{"status":"success","data":{"resultType":"vector","result":[{"metric":{"pod":"a"},"value":[1,"1"]},'
            '{"metric":{"pod":"b"},"value":[1,"1"]}]}}'
        ),
        200,
        "the query answers 2 series, not one number; aggregate them",
    ),
    ('{"status":"success","data":{"resultType":"scalar","result":[1700000000.1,"NaN"]}}', 200, "answers NaN"),
    (
        '{"status":"success","data":{"resultType":"scalar","result":[1,' + "9" * 4000 + "]}}",
        200,
        "not that of a Prometheus",
    ),
    ('{"status":"success","data":{"resultType":"matrix","result":[]}}', 200, "answers a matrix, not one number"),
    ('{"status":"success","data":{"resultType":"string","result":[1700000000.1,"a"]}}', 200, "answers a string"),
    (
        '{"status":"error","errorType":"bad_data","error":"invalid parameter \\"query\\": 1:4: parse error"}',
        400,
        'Prometheus refuses the query: bad_data: invalid parameter "query": 1:4: parse error',
    ),
    ('{"status":"error","errorType":"timeout","error":"query timed out"}', 503, "timeout: query timed out"),
    ("<html>secret of an intranet</html>", 502, "the answer (HTTP status 502) is not that of a Prometheus"),
    ('["secret"]', 200, "is not that of a Prometheus"),
    ("{}", 401, "HTTP status 401"),
    ("", 302, "HTTP status 302"),
    ('{"status":"success","data":{"resultType":"scalar","result":[1,"secret"]}}', 200, "is not that of a Prometheus"),
]


@pytest.mark.parametrize(("body", "value"), NUMBERS)
def test_a_number(body: str, value: float) -> None:
    assert read_answer(5.0, 200, body.encode()) == Answer(5.0, value)


@pytest.mark.parametrize(("body", "status", "words"), SENTENCES)
def test_no_number(body: str, status: int, words: str) -> None:
    answer = read_answer(5.0, status, body.encode())
    assert answer.value is None
    assert words in answer.error
    assert "secret" not in answer.error


def test_the_servers_words_are_cut() -> None:
    body = f'{{"status":"error","errorType":"bad_data","error":"{"x" * 10_000}"}}'
    assert len(read_answer(5.0, 400, body.encode()).error) < 600
