"""The interpreter that the images ship runs the tests, and no code depends on a later one."""

from __future__ import annotations

import ast
import asyncio
import re
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from conch_agent.reasons import Failure, Reason
from conch_agent.tasks import run_all

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(file for folder in ("operator", "serving-image") for file in (ROOT / folder).rglob("*.py"))


def test_the_tests_run_on_the_interpreter_of_the_images() -> None:
    dockerfile = (ROOT / "serving-image" / "Dockerfile.cpu").read_text()
    release, library = (
        re.search(r"^FROM debian:(\w+)-slim", dockerfile, re.MULTILINE),
        re.search(r"libpython(3\.\d+)", dockerfile),
    )
    assert release
    assert library
    image = Path(f"/usr/bin/python{library.group(1)}")
    machine = Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else ""
    if f"VERSION_CODENAME={release.group(1)}" not in machine or not image.exists():
        pytest.skip(f"this machine is not Debian {release.group(1)}, whose {image} the images ship")
    shipped = subprocess.run(
        [image, "-c", "import sys; print(sys.version)"], capture_output=True, text=True, check=True
    )
    assert sys.version == shipped.stdout.strip(), f"run the tests by {image}: make PYTHON={image} .venv"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_shipped_code_has_except_star(file: Path) -> None:
    """Before Python 3.11.4 an exception that is raised inside `except*` leaves it in a group."""
    tree = ast.parse(file.read_text())
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.TryStar)]


async def _fail(error: BaseException, after: asyncio.Event | None = None) -> None:
    if after:
        await after.wait()
    raise error


def _nested(error: BaseException) -> Coroutine[Any, Any, None]:
    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_fail(error))

    return group()


@pytest.mark.parametrize("error", [Failure(Reason.ACCESS_DENIED, "no"), OSError(28, "full"), ValueError("other")])
async def test_the_first_failure_is_raised_itself(error: Exception) -> None:
    for works in ([_fail(error)], [_fail(error), _fail(KeyError("later"))], [_nested(error)]):
        with pytest.raises(type(error)) as raised:
            await run_all(works)
        assert raised.value is error


async def test_a_failure_cancels_the_others_and_waits_for_them() -> None:
    ended = False

    async def other() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            ended = True

    with pytest.raises(ValueError, match="first"):
        await run_all([other(), _fail(ValueError("first"))])
    assert ended


async def test_a_timeout_after_a_failure_is_a_timeout() -> None:
    """A group leaves its request to cancel behind, before Python 3.12.3 (python/cpython#116720)."""

    async def fail_and_wait() -> None:
        async with asyncio.timeout(0.1):
            with pytest.raises(ValueError, match="first"):
                await run_all([_fail(KeyError("never"), asyncio.Event()), _fail(ValueError("first"))])
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await fail_and_wait()
