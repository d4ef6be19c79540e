"""A program whose client of the store is at work when it ends: the status is that of the program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.serving.store import Store

PROGRAM = """
import asyncio, json, os
import obstore
from obstore.store import S3Store
from conch_contract.process_end import end_before_finalization

async def read():
    store = S3Store("models", config=json.loads(os.environ["STORE"]))
    reads = [asyncio.ensure_future(obstore.get_async(store, "end/model")) for _ in range(200)]
    await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)

@end_before_finalization
def main():
    asyncio.run(read())

main()
"""
RUNS = 15  # one in four was aborted, or crashed


def test_threads_of_the_client_do_not_abort_the_process(store: Store, tmp_path: Path) -> None:
    store.put("models", {"end/model": b"x"})
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "STORE": json.dumps(store.secret)}
    for _ in range(RUNS):
        subprocess.run([sys.executable, program], env=environment, check=True)
