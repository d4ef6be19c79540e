"""The demo's story, chapter by chapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np

from conch.api.child_kinds import CHILDREN
from conch_contract import names
from tests.cluster.paths import REPOSITORY
from tests.demo.progress import follow, is_rolled_back
from tests.demo.reporter import Reporter
from tests.support import clients, examples, filetypes, store
from tests.support.place import Place
from tests.support.service import Service, is_ready
from tests.support.traffic import Mix, Traffic

NAMESPACE: Final = "conch-demo"
EXAMPLE: Final = REPOSITORY / "examples" / "quickstart.yaml"
PIPELINE: Final = REPOSITORY / "examples" / "pipeline.yaml"
_NAME: Final = "magika"
_WRONG: Final = "s3://models/file-type-wrong/labels"


def play(place: Place, reporter: Reporter) -> None:
    """Install Conch, serve a model, send it requests, and show what was made."""
    with reporter.chapter("Conch: images, and the Helm chart in conch-system"):
        place.prepare()
        place.install()
    with reporter.chapter(f"A model in an S3 store (SeaweedFS, namespace {NAMESPACE})"):
        _upload(place, reporter)
    service, printed = Service(place.kube, NAMESPACE, _NAME), set[str]()
    with reporter.chapter(f"kubectl apply -f {EXAMPLE.relative_to(REPOSITORY)}"):
        _apply(place, service, EXAMPLE, reporter, printed)
        reporter.text(place.kube.run("get", "isvc", _NAME, f"--namespace={NAMESPACE}").rstrip())
    with reporter.chapter("Three files, over HTTP and gRPC, through the Service"):
        _infer(place, reporter)
    load = ", while requests keep coming" if place.local else ""
    with reporter.chapter(f"kubectl patch: another model{load}"):
        _change(place, service, reporter, printed)
    with reporter.chapter("What was made for the service"):
        _show(service, reporter)
    pipeline, printed = Service(place.kube, NAMESPACE, "file-type-pipeline"), set[str]()
    with reporter.chapter(f"kubectl apply -f {PIPELINE.relative_to(REPOSITORY)}: a file in, its type out"):
        _apply(place, pipeline, PIPELINE, reporter, printed)
        _send_files(place, pipeline, reporter)
    with reporter.chapter("kubectl patch: another last step, which is wrong. The gate parity compares both revisions"):
        _break_pipeline(place, pipeline, reporter, printed)
    reporter.text(_next(place, reporter.seconds))


def _apply(place: Place, service: Service, file: Path, reporter: Reporter, printed: set[str]) -> None:
    """Apply an example as it stands, and follow its service until it is Ready."""
    if service.body:
        reporter.text("  (an earlier demo's service is deleted first)")
        service.delete()
        service.until_gone()
    reporter.text(file.read_text())
    place.kube.apply(file, NAMESPACE)
    follow(service, reporter, printed)


def _upload(place: Place, reporter: Reporter) -> None:
    place.namespace(NAMESPACE)
    store.deploy(place.kube, NAMESPACE)
    with place.reach(NAMESPACE, "store", store.PORT) as [address]:
        bucket = store.reach(NAMESPACE, address)
        for folder in ("magika", "magika-v2"):
            bucket.upload(f"s3://models/{folder}", {"model.onnx": filetypes.MODEL})
        files = examples.build_file_type()
        bucket.upload("s3://models/file-type", files)
        bucket.upload(_WRONG, examples.build_wrong_labels(files))
    place.kube.apply(bucket.secret(), NAMESPACE)
    size = filetypes.MODEL.stat().st_size
    reporter.text(f"  s3://models/magika/model.onnx: magika, Google's file-type detector, {size / 1e6:.1f} MB")


def _infer(place: Place, reporter: Reporter) -> None:
    rows = []
    with place.reach(NAMESPACE, _NAME, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc]:
        for name, content in filetypes.samples().items():
            inputs = {filetypes.INPUT: filetypes.features(content)}
            answers = [clients.infer_http(http, _NAME, inputs), clients.infer_grpc(grpc, _NAME, inputs)]
            labels = [filetypes.label(answer[filetypes.OUTPUT]) for answer in answers]
            rows.append([name, *(f"{label} ({score:.4f})" for label, score in labels), filetypes.expected(content)])
    reporter.table(["file", "over HTTP", "over gRPC", "magika on this machine"], rows)


def _change(place: Place, service: Service, reporter: Reporter, printed: set[str]) -> None:
    """Change the model; where every pod can be reached, under load."""
    change = {"predictor": {"model": {"storageUri": "s3://models/magika-v2"}}}
    reporter.text(f"  {json.dumps({'spec': change})}")
    if place.local is None:  # a forwarded port leads to one pod, and ends with it
        service.patch(change)
        follow(service, reporter, printed)
        return
    with (
        place.reach(NAMESPACE, _NAME, names.HTTP_PORT, names.GRPC_PORT) as [http, grpc],
        Traffic(http, grpc, filetypes.picture_request(_NAME), Mix(grpc=4, fresh=4, kept=0, rate=4)) as traffic,
    ):
        service.patch(change)
        follow(service, reporter, printed)
        service.settle()
    for kind, words in (("grpc", "over 4 long-lived gRPC channels"), ("fresh", "over HTTP, a connection each")):
        reporter.text(f"  {traffic.tallies[kind]}, {words}")


def _send_files(place: Place, service: Service, reporter: Reporter) -> None:
    """Send files; print the answers."""
    rows = []
    with place.reach(NAMESPACE, service.name, names.HTTP_PORT) as [http]:
        for name, content in filetypes.samples().items():
            answer = clients.infer_http(http, "file-type", {"file": np.array([content], dtype=object)})
            rows.append([name, answer["type"].tolist()[0].decode(), filetypes.expected(content)])
    reporter.table(["file", "the pipeline's answer", "magika on this machine"], rows)


def _break_pipeline(place: Place, service: Service, reporter: Reporter, printed: set[str]) -> None:
    """Change the last step to one that is wrong; its revision gets no request."""
    models = [
        {**model, "storageUri": _WRONG} if model["name"] == "labels" else model
        for model in service.body["spec"]["predictor"]["models"]
    ]
    change = {"predictor": {"models": models}, "rollout": {"analysis": [{"parity": {"requests": 5}}]}}
    reporter.text(f"  models[labels].storageUri: {_WRONG}\n  {json.dumps({'rollout': change['rollout']})}")
    service.patch(change)
    follow(service, reporter, printed, is_rolled_back)
    reporter.text(f"  {service.status['rollout']['message']}")
    _send_files(place, service, reporter)


def _show(service: Service, reporter: Reporter) -> None:
    branches: dict[str, list[str]] = {
        f"{kind.name}/{child['metadata']['name']}": [] for kind in CHILDREN for child in service.children(kind)
    }
    for pod in service.pods():
        node = pod["spec"].get("nodeName", "no node")
        state = "ready" if is_ready(pod) else "not ready"
        branches[f"Pod/{pod['metadata']['name']} ({state}, on {node})"] = [
            c["name"] for c in (*pod["spec"]["initContainers"], *pod["spec"]["containers"])
        ]
    reporter.tree(f"InferenceService/{service.name}", branches)


def _next(place: Place, seconds: float) -> str:
    kubectl = ".venv/bin/python -m tests.cluster kubectl" if place.local else "kubectl"
    config = f"  export KUBECONFIG={place.local.kubeconfig}\n" if place.local else ""
    end = "  make cluster-down                      # the whole cluster" if place.local else ""
    return f"""
Done in {seconds:.0f} s. Go on:
{config}  {kubectl} -n {NAMESPACE} get isvc,pods
  {kubectl} -n {NAMESPACE} describe isvc {_NAME}
  {kubectl} -n {NAMESPACE} patch isvc {_NAME} --type merge -p '{{"spec":{{"predictor":{{"minReplicas":3}}}}}}'
Or end it:
  {kubectl} delete namespace {NAMESPACE}
{end}"""
