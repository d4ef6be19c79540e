"""Files of a model that is served are overwritten: a revision stays what it was."""

from __future__ import annotations

from collections.abc import Callable

from conch_contract import names
from tests.support import clients
from tests.support.doubling import NUMBERS, build_predictor
from tests.support.examples import MODELS
from tests.support.place import Place
from tests.support.service import Service
from tests.support.store import Store
from tests.support.wait import until

VERSIONED = "versioned"  # a bucket that keeps what is overwritten
REQUESTS = 40


def test_a_later_pod_serves_what_the_first_one_serves_or_takes_no_requests(
    place: Place, serve: Callable[..., Service], bucket: Store, figure: Callable[[str], None]
) -> None:
    places = {"kept": f"s3://{VERSIONED}/live", "lost": "s3://models/live"}
    for uri in places.values():
        bucket.upload(uri, multiply_by(2))
        if VERSIONED in uri:
            bucket.keep_versions(place.kube, VERSIONED)
            bucket.upload(uri, multiply_by(2))  # what was there before has no version
    services = {name: serve(name, **predictor(uri)) for name, uri in places.items()}
    served = {name: service.until_ready()["stable"] for name, service in services.items()}
    for name, uri in places.items():
        bucket.upload(uri, multiply_by(3))
        services[name].patch({"predictor": {"minReplicas": 2}})

    kept, lost = services["kept"], services["lost"]
    assert kept.until_ready()["stable"] == served["kept"]
    assert len(kept.ready_pods()) == 2
    ready = lost.until_condition("Ready", "False", reason="ContentChanged")
    figure(ready["message"])
    assert places["lost"] in ready["message"]
    for service in services.values():
        with place.reach(service.namespace, service.name, names.HTTP_PORT) as [http]:
            answers = {clients.infer_http(http, "double", {"x": NUMBERS})["y"].tolist()[0] for _ in range(REQUESTS)}
        assert answers == {2 * NUMBERS[0]}, "no answer comes from the later upload"
    assert len(lost.ready_pods()) == 1

    bucket.upload(places["lost"], multiply_by(2))
    assert lost.until_ready()["stable"] == served["lost"]
    until(lambda: len(lost.ready_pods()) == 2, "restored files are enough")


def multiply_by(factor: int) -> dict[str, bytes]:
    """Return the files of a model with its factor in the source."""
    before, after = (MODELS / "double" / "model.py").read_text().split('settings["FACTOR"]')
    return {"model.py": f"{before}{str(factor)!r}{after}".encode()}


def predictor(uri: str) -> dict[str, object]:
    predictor = build_predictor(2)
    return {**predictor, "model": {**predictor["model"], "storageUri": uri}}
