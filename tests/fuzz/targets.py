"""What is fuzzed: each function that reads a text of others, the errors that it may raise, and texts to begin with.

Any other exception, and a text that takes over 20 s, ends the fuzzer: it is a bug.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import gzip
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

from backports import zstd
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate

from conch.api import Status
from conch.api.kinds import CONTROLLER_REVISION, GATEWAY, GATEWAY_CLASS, HTTP_ROUTE, INFERENCE_SERVICE
from conch.api.text import read_json
from conch.decide import build_status, decide
from conch.desire import desire
from conch.observe import Snapshot
from conch.observe.contents import decode_contents
from conch.plan import find_unwritten, plan
from conch.signals.agents import read_report
from conch.signals.prometheus import read_answer
from conch.triton.metrics import read_load, read_metrics
from conch.write.errors import CallError, read_error, read_object
from conch_agent.archives import Limits, Unpacker
from conch_agent.config import merge_config, parse_config
from conch_agent.programs import refuse_programs
from conch_agent.reasons import Failure
from conch_agent.signatures.bundle import Envelope, parse_bundle
from conch_agent.signatures.statement import parse_statement
from conch_agent.signatures.trust import Trust, verify_envelope
from conch_agent.sources import az_settings, gs_settings, hf_settings, oci_documents, oci_settings
from conch_agent.sources.answer import read_body
from conch_agent.sources.base import Archives, Entry, Item, build_listing
from conch_agent.sources.hf_answers import TREE, parse_answer
from conch_agent.sources.oci_challenge import parse_challenges
from conch_agent.sources.oci_errors import read_oci_error
from conch_agent.sources.oci_layers import list_layers
from conch_agent.sources.oci_uri import Artifact
from conch_agent.sources.retry_after import read_delay
from conch_agent.sources.s3_errors import classify
from conch_agent.sources.s3_settings import parse_settings
from conch_contract import ModelSource
from conch_contract.parsing import parse_json
from conch_contract.revision_jobs import REVISION_JOBS
from tests.support.azure import make_container_sas
from tests.support.bundles import derive_key, make_certificate, seal
from tests.support.google import Account
from tests.support.tars import file, folder, pack, pack_files, special
from tests.unit.simulation import DEFAULTS, Cluster, build_manifest

_PAGE: Final = b"""# HELP nv_inference_request_success Number of successful inference requests
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="m",version="1"} 7.000000
nv_inference_request_failure{model="m",version="1",reason="OTHER"} 1
nv_inference_queue_duration_us{model="m",version="1"} 1e3
nv_inference_request_summary_us{model="m",version="1",quantile="0.99"} Nan
nv_inference_pending_request_count{model="m",version="1"} 3
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.5
"""
_CONFIG: Final = b"""name: "m"
backend: "onnxruntime"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] }]
instance_group [{ count: 2 kind: KIND_GPU gpus: [0] }]
dynamic_batching { preferred_batch_size: [4] max_queue_delay_microseconds: 100 }
version_policy: { latest { num_versions: 2 } }
parameters: { key: "EXECUTION_ENV_PATH" value: { string_value: "x" } }
"""
_KEY: Final = derive_key("fuzz")
_STATEMENT: Final = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "m", "digest": {"sha256": "0" * 64}}],
    "predicateType": "https://model_signing/signature/v1.0",
    "predicate": {
        "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [".git"]},
        "resources": [{"name": "1/a", "algorithm": "sha256", "digest": "0" * 64}],
    },
}
_S3_ERROR: Final = b"""Server returned non-2xx status code: 403 Forbidden: <?xml version="1.0"?><Error>\
<Code>AccessDenied</Code><Message>no</Message><Endpoint>a.example</Endpoint></Error>\n\nDebug source:"""

_ARCHIVES: Final = (
    pack(folder("1"), file("1/model.onnx", b"1" * 600), special("a", tarfile.LNKTYPE, "1/model.onnx")),
    pack(file("a" * 200, b"1"), special("b", tarfile.SYMTYPE, "../x"), form=tarfile.GNU_FORMAT),
    pack_files({"m/.wh.a": b"", "m/.wh..wh..opq": b"", "m/ä": b"1"}),
)


@dataclass(frozen=True)
class Target:
    """A function that reads bytes of others."""

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    errors: tuple[type[Exception], ...] = ()
    is_json: bool = False  # texts are changed as JSON values, not as bytes


def _seeds(*values: Any) -> tuple[bytes, ...]:
    return tuple(json.dumps(value).encode() for value in values)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _json(read: Callable[[Any], object], *seeds: Any, errors: tuple[type[Exception], ...] = ()) -> Target:
    """A function of a JSON object, as the API server hands it out."""

    def parsed(data: bytes) -> object:
        try:
            value = parse_json(data)
        except ValueError:
            return None
        return read(value) if isinstance(value, dict) else None

    return Target(parsed, _seeds(*seeds), errors, is_json=True)


def _merge(data: bytes) -> None:
    text = _text(data)
    for kind in ("onnx", "python"):
        source = ModelSource(name="m", format=kind, storage_uri="s3://b/m")
        refuse_programs(parse_config(text, source.storage_uri), source)
        merge_config(text, source, kind)


@cache
def _chain() -> tuple[Certificate, Certificate]:
    """Return a certificate, and the root that has signed it."""
    root = make_certificate("Root", _KEY, is_authority=True)
    return make_certificate("Team", _KEY, (root, _KEY)), root


def _signatures() -> Iterator[dict[str, Any]]:
    certificate = base64.b64encode(_chain()[0].public_bytes(Encoding.DER)).decode()
    yield seal(_STATEMENT, _KEY)
    yield seal(_STATEMENT, _KEY, x509CertificateChain={"certificates": [{"rawBytes": certificate}]})


def _signature(data: bytes) -> None:
    name = "s3://b/m: model.sig"
    trust = Trust("the ConfigMap 'team'", {"sha256:0": _KEY.public_key()}, (_chain()[1],))
    verify_envelope(parse_bundle(data, name), trust, name, datetime.now(UTC))


def _certificate(data: bytes) -> None:
    envelope = Envelope(payload=b"{}", signature=b"", certificates=(data,))
    verify_envelope(
        envelope, Trust("the ConfigMap 'team'", {}, (_chain()[1],)), "s3://b/m: model.sig", datetime.now(UTC)
    )


def _classify(data: bytes) -> None:
    classify(RuntimeError(_text(data)), "s3://b/m", "b", "")


def _secret(value: Mapping[str, Any]) -> None:
    texts = {str(key): str(text) for key, text in value.items()}
    parse_settings(texts)
    hf_settings.parse_settings(texts)
    oci_settings.parse_settings(texts)


def _logins(value: Mapping[str, Any]) -> None:
    settings = oci_settings.parse_settings({oci_settings.LOGINS_KEY: json.dumps(value)})
    for name in ("a", "a/b", "c"):
        oci_settings.find_login(settings.logins, Artifact("r.example", name, "v1"))


def _list_layers(data: bytes, media_type: str) -> None:
    document = oci_documents.parse_document(data, media_type, "oci://r.example/a:v1")
    if isinstance(document, oci_documents.Index):
        oci_documents.select_manifest(document, "amd64", "oci://r.example/a:v1")
    else:
        list_layers(document, Artifact("r.example", "a", "v1"), "", "oci://r.example/a:v1")


def _repair(data: bytes) -> bytes:
    """Give headers the checksum that they have to have, which no mutation finds."""
    repaired = bytearray(data)
    for start in range(0, len(data) - 511, 512):
        if repaired[start + 257 : start + 262] == b"ustar":
            repaired[start + 148 : start + 156] = b" " * 8
            repaired[start + 148 : start + 156] = b"%06o\0 " % sum(repaired[start : start + 512])
    return bytes(repaired)


def _unpack(data: bytes) -> None:
    """Unpack an archive into a folder of memory, and read what nothing else may have written to."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as root:
        archive, target = Path(root, "archive"), Path(root, "inside", "target")
        target.mkdir(parents=True)
        archive.write_bytes(_repair(data))
        for are_layers in (False, True):
            archives = Archives((Item(PurePosixPath("layer-1"), None, "", ""),), are_layers=are_layers)
            limits = Limits(1 << 20, lambda *_: None)
            with contextlib.suppress(Failure):
                for _ in Unpacker("oci://r.example/a:v1", archives, target, limits).run([archive]):
                    pass
        assert sorted(path.name for path in (*Path(root).iterdir(), *target.parent.iterdir())) == [
            *("archive", "inside", "target")
        ]
        assert all(path.is_dir() or (path.is_file() and not path.is_symlink()) for path in target.rglob("*"))


def _account_key(data: bytes) -> None:
    gs_settings.parse_settings({gs_settings.ACCOUNT_KEY: _text(data)})


def _azure_credentials(data: bytes) -> None:
    for key in ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_AUTHORITY_HOST"):
        with contextlib.suppress(Failure):
            az_settings.parse_settings({key: _text(data)}, "account")


def _listing(value: Mapping[str, Any]) -> None:
    build_listing([Entry(str(name), 1, "tag", str(name)) for name in value], "s3://b/m")


@cache
def _rollout() -> Cluster:
    """A service in a rollout behind a Gateway, with a variant."""
    traffic = {"gateways": [{"name": "public", "namespace": "infra"}], "hostnames": ["magika.example.com"]}
    service = build_manifest(
        minReplicas=1, maxReplicas=3, rollout={"steps": [{"weight": 50}, {"pause": "1h"}]}, traffic=traffic
    )
    service["spec"]["variants"] = [{"name": "beta", "match": [{"headers": [{"name": "x-beta", "value": "1"}]}]}]
    cluster = Cluster(service)
    for uri in ("s3://models/one", "s3://models/two"):
        cluster.edit(uri=uri)
        cluster.settle()
        for _ in range(8):
            for ref in [ref for ref in cluster.objects if ref.kind.name == "Deployment"]:
                cluster.start_pods(ref.name)
            cluster.accept_routes()
            cluster.settle()
    return cluster


# What a user, a gateway or a controller may write without a schema that the API server checks.
_FREE: Final = {
    CONTROLLER_REVISION: ("data",),
    HTTP_ROUTE: ("status",),
    GATEWAY: ("status",),
    GATEWAY_CLASS: ("status",),
}


def _free_parts() -> Iterator[tuple[str, Any]]:
    for ref, body in _rollout().objects.items():
        for field in ("annotations", "labels"):
            if field in body["metadata"]:
                yield f"{ref.kind.name}/{ref.name}/metadata/{field}", body["metadata"][field]
        for field in (*_FREE.get(ref.kind, ()), *(("status",) if ref.kind == INFERENCE_SERVICE else ())):
            if field in body:
                yield f"{ref.kind.name}/{ref.name}/{field}", body[field]


def _reconcile(value: Mapping[str, Any]) -> None:
    """Decide on the service while parts of its objects hold something else."""
    cluster = copy.deepcopy(_rollout())
    for ref, known in list(cluster.objects.items()):
        body = copy.deepcopy(known)
        for path, part in value.items():
            kind, _, rest = path.partition("/")
            name, _, field = rest.partition("/")
            if (kind, name) == (ref.kind.name, ref.name):
                if field.startswith("metadata/") and isinstance(part, dict):
                    body["metadata"][field.removeprefix("metadata/")] = {str(k): str(v) for k, v in part.items()}
                elif isinstance(part, type(body.get(field))):
                    body[field] = part
        cluster.put(body)
    snapshot = cluster.snapshot()
    assert isinstance(snapshot, Snapshot)
    decision = decide(snapshot)
    _, rejections = plan(snapshot, decision, desire(snapshot, decision, DEFAULTS))
    build_status(snapshot, decision, find_unwritten(snapshot.service, rejections, {})).to_wire()


def targets() -> dict[str, Target]:
    """Return all, by name."""
    status = _rollout().status.to_wire()
    status["rollout"] |= {"unavailableSince": "2026-01-01T00:00:00Z", "stableUnavailableSince": "2026-01-01T00:00:00Z"}
    vector = {"resultType": "vector", "result": [{"metric": {}, "value": [1, "2.5"]}]}
    report = {"ready": True, "models": [{"name": "m", "state": "Ready", "digest": "sha256:1"}]}
    failure = {"kind": "Status", "code": 409, "reason": "Conflict", "message": "m", "details": {"retryAfterSeconds": 1}}
    descriptor = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{'0' * 64}",
        "size": 1,
        "annotations": {"org.opencontainers.image.title": "1/model.onnx"},
    }
    secret = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": "https://s.example:9000"}
    return {
        "metrics-page": Target(lambda data: read_metrics(_text(data), "m"), (_PAGE,), (ValueError,)),
        "load-page": Target(lambda data: read_load(_text(data), ""), (_PAGE,), (ValueError,)),
        "agent-report": Target(read_report, _seeds(report), (ValueError,), is_json=True),
        "prometheus-answer": Target(
            lambda data: read_answer(0.0, 200, data),
            _seeds({"status": "success", "data": vector}, {"status": "error", "errorType": "t", "error": "e"}),
            is_json=True,
        ),
        "api-error": Target(lambda data: read_error(409, data), _seeds(failure), is_json=True),
        "api-object": Target(lambda data: read_object("host", 200, data), _seeds(failure), (CallError,), is_json=True),
        "json": Target(lambda data: read_json(data, 20_000), _seeds(status), (ValueError,), is_json=True),
        "status": _json(lambda value: Status.lenient(value).limit_times(0.0), status),
        **{
            f"{row.name}-report": _json(row.report.model_validate, {"requests": 1}, errors=(ValueError,))
            for row in REVISION_JOBS
        },
        "reconcile": _json(_reconcile, dict(_free_parts())),
        "config.pbtxt": Target(_merge, (_CONFIG,), (Failure,)),
        "store-error": Target(_classify, (_S3_ERROR,)),
        "server-answer": Target(
            lambda data: read_body(500, "no", _text(data)), (_S3_ERROR, b'{"code":"c","message":"m"}'), is_json=True
        ),
        "hub-tree": Target(
            lambda data: parse_answer(data, TREE, "hf://o/n", "https://hub"),
            _seeds([{"type": "file", "path": "a", "oid": "a" * 40, "size": 1, "lfs": {"oid": "b" * 64, "size": 1}}]),
            (Failure,),
            is_json=True,
        ),
        "oci-manifest": Target(
            lambda data: _list_layers(data, "application/vnd.oci.image.manifest.v1+json"),
            _seeds({"schemaVersion": 2, "layers": [{**descriptor, "mediaType": "application/octet-stream"}]}),
            (Failure,),
            is_json=True,
        ),
        "archive": Target(
            _unpack, (*_ARCHIVES, *map(gzip.compress, _ARCHIVES), *map(zstd.compress, _ARCHIVES)), (OSError,)
        ),
        "oci-index": Target(
            lambda data: _list_layers(data, "application/vnd.oci.image.index.v1+json"),
            _seeds({"schemaVersion": 2, "manifests": [{**descriptor, "platform": {"os": "linux"}}]}),
            (Failure,),
            is_json=True,
        ),
        "oci-error": Target(
            lambda data: read_oci_error(404, "no", _text(data)),
            _seeds({"errors": [{"code": "NAME_UNKNOWN", "message": "m"}]}),
            is_json=True,
        ),
        "oci-challenge": Target(
            lambda data: parse_challenges([_text(data)]), (b'Bearer realm="https://a/token",service="s", Basic a=b',)
        ),
        "oci-logins": _json(_logins, {"auths": {"r.example/a": {"auth": "bWU6c2VjcmV0"}}}, errors=(Failure,)),
        "retry-after": Target(
            lambda data: read_delay({"Retry-After": _text(data), "RateLimit": _text(data)}),
            (b"7", b'"api";r=0;t=55', b"Fri, 31 Dec 2027 23:59:59 GMT"),
        ),
        "storage-secret": _json(_secret, secret, errors=(Failure,)),
        "account-key": Target(_account_key, (Account().write().encode(),), (Failure,), is_json=True),
        "azure-credentials": Target(_azure_credentials, (make_container_sas("models").encode(),)),
        "listing": _json(_listing, {"1/model.onnx": 1, "config.pbtxt": 1}, errors=(Failure,)),
        "signature": Target(_signature, _seeds(*_signatures()), (Failure,), is_json=True),
        "certificate": Target(_certificate, (_chain()[0].public_bytes(Encoding.DER),), (Failure,)),
        "signed-files": Target(
            lambda data: parse_statement(data, "s3://b/m: model.sig").is_ignored(PurePosixPath("1/a")),
            _seeds(_STATEMENT),
            (Failure,),
            is_json=True,
        ),
        "contents": Target(
            lambda data: decode_contents(_text(data)),
            _seeds({"m": {"digest": "sha256:1", "objectVersions": {"a": "3sL4"}}}),
            is_json=True,
        ),
    }
