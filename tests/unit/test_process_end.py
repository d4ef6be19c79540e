"""A program ends with the status that it would have, after its output and what is registered with `atexit`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit, sys
from conch_contract.process_end import end_before_finalization

def finalize(*_):
    print("finalized", flush=True)

sys.last_one = type("LastOne", (), {{"__del__": finalize}})()  # of the interpreter
@end_before_finalization
def main():
    atexit.register(print, "registered")
    print("answer")
    {last}

main()
"""
ENDS = {
    "pass": (0, ""),
    "sys.exit()": (0, ""),
    "sys.exit(3)": (3, ""),
    "sys.exit('text')": (1, "text\n"),
    "raise ValueError('fault')": (1, "ValueError: fault\n"),
}


@pytest.mark.parametrize("last", ENDS)
def test_the_status_and_the_output_are_the_same(last: str, tmp_path: Path) -> None:
    status, message = ENDS[last]
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(last=last))
    result = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (status, "answer\nregistered\n")
    assert result.stderr.endswith(message)
    assert bool(result.stderr) == bool(message)


def test_output_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(last="pass"))
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([sys.executable, program], stdout=full, stderr=subprocess.PIPE, check=False)
    assert result.returncode == 1
