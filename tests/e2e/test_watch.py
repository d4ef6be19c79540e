"""New content in the store: it becomes a revision with steps and gates, or is reported."""

from __future__ import annotations

import json
from collections.abc import Callable

from conch_contract import names
from tests.e2e.test_overwritten_files import multiply_by, predictor
from tests.support import clients
from tests.support.doubling import NUMBERS
from tests.support.place import Place
from tests.support.service import Service
from tests.support.store import Store
from tests.support.wait import until


def watched(uri: str, watch: str) -> dict[str, object]:
    """The predictor of a model that is watched."""
    fields = predictor(uri)
    model = json.loads(json.dumps(fields["model"]))
    model["storage"] |= {"watch": watch, "refresh": "10s"}
    return {**fields, "model": model}


def answer(place: Place, service: Service, namespace: str) -> float:
    with place.reach(namespace, service.name, names.HTTP_PORT) as [http]:
        return float(clients.infer_http(http, "double", {"x": NUMBERS})["y"].tolist()[0])


def test_new_content_is_rolled_out(place: Place, serve: Callable[..., Service], namespace: str, bucket: Store) -> None:
    uri = "s3://models/watched"
    bucket.upload(uri, multiply_by(2))
    service = serve("watched", **watched(uri, "Rollout"))
    first = service.until_ready()["stable"]
    assert answer(place, service, namespace) == 2 * NUMBERS[0]
    service.until_condition("SourceUpToDate", "True")
    bucket.upload(uri, multiply_by(3))
    until(lambda: service.status["stable"] != first, "the new content serves")
    status = service.until_ready()
    until(lambda: answer(place, service, namespace) == 3 * NUMBERS[0], "requests reach its pods")
    assert [revision["name"] for revision in status["revisions"]] == [status["stable"]]
    service.until_condition("SourceUpToDate", "True")


def test_new_content_is_reported(place: Place, serve: Callable[..., Service], namespace: str, bucket: Store) -> None:
    uri = "s3://models/reported"
    bucket.upload(uri, multiply_by(2))
    service = serve("reported", **watched(uri, "Report"))
    first = service.until_ready()["stable"]
    service.until_condition("SourceUpToDate", "True")
    bucket.upload(uri, multiply_by(3))
    condition = service.until_condition("SourceUpToDate", "False")
    assert condition["reason"] == "NewContent"
    assert service.until_ready()["stable"] == first
    assert answer(place, service, namespace) == 2 * NUMBERS[0]
