"""What a pod imports: a process waits for it, and has it in memory for as long as it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Libraries, and packages of the agent, that some models need.
_LARGE = {
    *("aiohttp", "cryptography", "magika", "ml_dtypes", "numpy", "obstore", "rapidjson", "sigstore"),
    *("conch_agent.parity", "conch_agent.sources.http_client", "conch_agent.signatures.trust"),
}


def _run(program: str) -> set[str]:
    """Run a program in an interpreter of its own; return the large modules that it has imported."""
    program += f"\nimport sys; print(*sorted({_LARGE} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_agent_is_live_before_it_imports_a_client_of_triton() -> None:
    later = {"grpc", "google.protobuf", "structlog", "tritonclient"}
    assert _run(f"import conch_agent.main, sys; assert not {later} & set(sys.modules)") == set()


def test_a_pod_without_a_warm_up_imports_no_large_library() -> None:
    assert _run("import conch_agent.main, conch_agent.program") == set()


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("file", set()),
        ("pvc", set()),
        ("s3", {"aiohttp", "obstore", "conch_agent.sources.http_client"}),
        ("https", {"aiohttp", "conch_agent.sources.http_client"}),
    ],
)
def test_a_scheme_imports_what_it_needs(scheme: str, expected: set[str], tmp_path: Path) -> None:
    uri = f"{scheme}://bucket/m"
    assert (
        _run(
            "import conch_agent.program\n"
            "from pathlib import Path\n"
            "from conch_agent.settings import Settings\n"
            "from conch_agent.sources import open_source\n"
            f"open_source({uri!r}, Settings(root=Path({str(tmp_path)!r})))"
        )
        == expected
    )


def test_the_whole_client_of_triton_is_there_when_it_is_used() -> None:
    program = (
        "import conch_agent\n"
        "import tritonclient.grpc as client, tritonclient.grpc.aio as aio\n"
        "from tritonclient.grpc import InferInput, service_pb2\n"
        "assert client.InferInput is InferInput is aio.InferInput\n"
        "assert service_pb2.ModelConfigRequest and aio.InferenceServerClient"
    )
    assert "numpy" in _run(program)


def test_an_unknown_name_of_the_client_is_an_error() -> None:
    program = "import conch_agent, tritonclient.grpc as client\nassert not hasattr(client, 'InferInputt')"
    assert "numpy" in _run(program)
