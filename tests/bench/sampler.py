"""The operator under a profiler that samples its processor time: `python -m tests.bench.sampler FILE`.

The file gets a line for each stack of the main thread, outermost frame first: `file:function;file:function count`, as
programs that draw flame graphs read it. py-spy samples from outside by the wall clock, so that on busy cores it counts
a thread that waits for a core as one that works.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

from conch.controller import main as run_operator

SECONDS: Final = 0.004  # of processor time between two samples


def main(file: Path) -> None:
    """Run the operator until it ends, and write its stacks."""
    stacks: Counter[str] = Counter()

    def note(_signal: int, frame: FrameType | None) -> None:
        stacks[_describe(frame)] += 1

    signal.signal(signal.SIGPROF, note)
    signal.setitimer(signal.ITIMER_PROF, SECONDS, SECONDS)
    try:
        run_operator()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        file.write_text("".join(f"{stack} {count}\n" for stack, count in stacks.most_common()))


def _describe(frame: FrameType | None) -> str:
    frames = []
    while frame is not None:
        frames.append(f"{frame.f_code.co_filename.replace(' ', '_')}:{frame.f_code.co_name}")
        frame = frame.f_back
    return ";".join(reversed(frames))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
