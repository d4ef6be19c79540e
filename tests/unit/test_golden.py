"""What each example becomes, word for word: a change of rendering shows in the diff of a golden file.

`GOLDEN=write pytest tests/unit/test_golden.py` writes the files anew; read the diff before you commit it.
The names of revisions are pinned with them: a change that renames the revision of an unchanged manifest
would restart every model with an operator upgrade.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.api.kinds import CONTROLLER_REVISION
from conch.api.metrics import MetricsApi
from conch.plain_yaml import dump_yaml
from conch.plan import Apply
from tests.support.examples import FILES
from tests.unit.simulation import Cluster

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"


def services(path: Path) -> list[dict[str, Any]]:
    """The InferenceServices of a manifest file."""
    documents = yaml.safe_load_all(path.read_text())
    return [document for document in documents if document and document["kind"] == "InferenceService"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_becomes_just_these_children(path: Path) -> None:
    rendered = []
    for service in services(path):
        service["metadata"] |= {"namespace": "demo", "uid": "service-uid", "generation": 1}
        # The name that the simulation reads: stories have one service.
        service["metadata"]["name"] = "magika"
        metrics_api: MetricsApi = "keda" if path.stem == "keda" else "builtin"
        actions = Cluster(service, metrics_api=metrics_api, prometheus="http://prometheus:9090").reconcile()
        # The ControllerRevision repeats the content of the others; its own part is short.
        rendered += [_short(a.manifest) for a in actions if isinstance(a, Apply)]
    text = dump_yaml(*rendered, sort_keys=True)
    golden = GOLDEN / path.name
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


def _short(manifest: Any) -> Any:
    body = {**manifest}
    if body["kind"] == CONTROLLER_REVISION.name:
        body["data"] = {"predictor": body["data"]["predictor"]}
    return body
