"""The tables of schemes and formats: each row has its module or backend, and each of those its row."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
from pydantic import ValidationError

from conch.desire.defaults import PodDefaults
from conch.desire.pod import build_pod_template
from conch_agent import sources
from conch_agent.settings import Settings
from conch_contract import ModelSource, formats, names, schemes
from conch_contract.formats import FORMATS, Format
from conch_contract.scheme import Mount, Scheme
from conch_contract.schemes import REMEDIES, SCHEMES, find_scheme, list_names
from tests.unit.test_api_types import parsed

BACKENDS = Path(__file__).parents[2] / "serving-image" / "backends"
EACH_SCHEME = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
EACH_FORMAT = pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS)


def test_a_name_has_one_row() -> None:
    assert len(schemes._ROWS) == len(SCHEMES)
    assert len(formats._ROWS) == len(FORMATS)
    assert len(list_names()) == len(set(list_names()))


def test_a_scheme_has_a_module_and_a_module_with_a_source_has_a_scheme() -> None:
    modules = {
        module.name: import_module(f"{sources.__name__}.{module.name}") for module in iter_modules(sources.__path__)
    }
    assert {name for name, module in modules.items() if hasattr(module, "open_source")} == set(SCHEMES)


@EACH_SCHEME
def test_an_example_matches_the_pattern_and_opens_a_source(scheme: Scheme, tmp_path: Path) -> None:
    for name in scheme.names:
        for example in scheme.examples:
            uri = f"{name}://{example}"
            assert re.fullmatch(scheme.pattern.replace("[:space:]", r"\s"), example)
            assert re.match(scheme.prefix, uri)
            assert find_scheme(uri) == scheme
            assert sources.open_source(uri, Settings(root=tmp_path)).uri == uri


def test_a_remedy_is_for_a_scheme_without_a_row() -> None:
    assert [name for name in list_names() for other in REMEDIES if re.fullmatch(other, name)] == []


@EACH_SCHEME
def test_the_agent_reads_the_keys_that_the_scheme_takes(scheme: Scheme) -> None:
    module = import_module(f"{sources.__name__}.{scheme.name}")
    assert {key.name for key in scheme.secret_keys} == set(getattr(module, "KEYS", ()))


@EACH_SCHEME
def test_the_agent_mounts_what_its_scheme_needs(scheme: Scheme) -> None:
    own = {"volumes": [{"name": "own", "emptyDir": {}}], "volumeMounts": [{"name": "own", "mountPath": "/own"}]}
    service = parsed({"model": {"modelFormat": {"name": "onnx"}, "storageUri": scheme.example}, "pod": own})
    template = build_pod_template(service, "magika-1", PodDefaults("conch/serving:1"))
    mounts = {mount["mountPath"] for mount in template["spec"]["initContainers"][0]["volumeMounts"]}
    assert ("/own" in mounts) == (scheme.mount == Mount.USER_VOLUMES)
    claim = f"{names.PVC_DIR}/{scheme.examples[0]}"
    assert (claim in mounts) == (scheme.mount == Mount.CLAIM)
    claims = [volume for volume in template["spec"]["volumes"] if "persistentVolumeClaim" in volume]
    assert len(claims) == (scheme.mount == Mount.CLAIM)


def test_a_backend_that_triton_lacks_has_a_folder_and_a_folder_has_a_format() -> None:
    folders = {file.parent.name for file in BACKENDS.glob("*/*/model.py")}
    assert folders == {row.backend for row in FORMATS.values() if not row.is_builtin}


@EACH_FORMAT
def test_a_format_is_described_by_the_files_that_select_it(row: Format) -> None:
    is_laid_out = row.is_triton_folder or row.is_repository
    assert is_laid_out != bool(row.model_files)
    assert bool(row.backend) != is_laid_out
    assert all(name in row.files for name in row.model_files)
    assert row.suffix or all(name in row.expected for name in row.model_files)
    assert row.suffix in row.expected
    for file in BACKENDS.glob(f"*/{row.backend}/model.py") if row.backend else ():
        program = "".join(module.read_text() for module in file.parent.glob("*.py"))
        assert all(f'"{name}"' in program for name in row.model_files)


@EACH_FORMAT
def test_a_format_of_the_table_is_a_format_of_the_manifest(row: Format) -> None:
    assert ModelSource(name="m", format=row.name, storage_uri="s3://b/m").format == row.name


def test_a_format_without_a_row_is_refused() -> None:
    with pytest.raises(ValidationError, match="Input should be 'onnx'"):
        ModelSource(name="m", format="none", storage_uri="s3://b/m")
