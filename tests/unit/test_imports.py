"""Importing Conch costs what Conch uses of kubernetes_asyncio, and nothing of the library is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENTRY_POINTS = ("conch.controller", "conch.cli.main", "conch.metrics.main")


def run_program(program: str) -> str:
    """Run a program in an interpreter of its own; return what it printed."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("entry", ENTRY_POINTS)
def test_a_process_that_starts_imports_few_generated_modules(entry: str) -> None:
    generated = ("kubernetes_asyncio.client.api.", "kubernetes_asyncio.client.models.")
    count = int(run_program(f"import sys, {entry}; print(sum(name.startswith({generated}) for name in sys.modules))"))
    assert count < 20  # of 1,700


def test_every_name_of_the_library_is_there_when_it_is_read() -> None:
    program = """
        import conch
        from kubernetes_asyncio import client
        from kubernetes_asyncio.client.models import V1Pod
        assert client.V1Pod is V1Pod and client.models.V1Pod is V1Pod and client.V1Pod is V1Pod
        assert client.CoreV1Api.__module__ == "kubernetes_asyncio.client.api.core_v1_api"
        print(sum(getattr(client, name) is not None for name in client.__all__))
        print(hasattr(client, "V1Podd"))
    """
    found, unknown = run_program("\n".join(line.strip() for line in program.splitlines())).split()
    assert int(found) > 800
    assert unknown == "False"


def test_a_class_that_is_imported_already_stays_the_same() -> None:
    program = "from kubernetes_asyncio import client; pod = client.V1Pod; import conch; print(client.V1Pod is pod)"
    assert run_program(program).strip() == "True"
