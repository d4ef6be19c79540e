"""What an image is built from, as one hash: an image whose inputs have not changed is not built again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.cluster.binaries import content_key

_COPY = re.compile(r"^(?:COPY|ADD)\s+((?:\\\n|[^\n])+)", re.MULTILINE)


def copied(dockerfile: str) -> list[str]:
    r"""Return the paths that a Dockerfile copies from the build context, as it names them.

    >>> copied("COPY --from=build /opt /opt\nCOPY a.txt \\\n  b b/\n")
    ['a.txt', 'b']
    """
    lines = (match[1].replace("\\\n", " ").split() for match in _COPY.finditer(dockerfile))
    return [word for words in lines if not words[0].startswith("--from") for word in words[:-1] if word[:2] != "--"]


def fingerprint(dockerfile: Path, context: Path, others: Iterable[str]) -> str:
    """Return a hash of the Dockerfile, of all that it copies from the context, and of other inputs, as text."""
    text = dockerfile.read_text()
    parts = [text.encode(), *(other.encode() for other in others)]
    for name in copied(text):
        for file in _files(context / name):
            parts += [str(file.relative_to(context)).encode(), file.read_bytes()]
    return content_key(parts)


def _files(path: Path) -> Iterator[Path]:
    """Yield a path's files in their order, but for what Python leaves beside them."""
    if path.is_file():
        yield path
    for file in sorted(path.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts and not any(p.endswith(".egg-info") for p in file.parts):
            yield file
