"""Words that names and sentences do without, and what to write in their place."""

import re
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]

INSTEAD: Final = {
    r"tell|tells|told|telling": "report, return or set",
    r"say|says|said|saying": "read, state or set",
    r"ask|asks|asked|asking": "request, or require",
    r"nobody|somebody|anybody|whoever": "the component or the person that acts",
    r"shall": "the present tense",
    r"wish|wishes": "setting, or best effort",
    r"doubt|doubts": "finding",
    r"stranger|strangers": "foreign object",
    r"judge|judges|judged|judgement|judgements": "evaluate, evaluation",
    r"rouse|(?<!keep-)alive": "start, running",
    r"looks? at|looked at|looking at": "read, check or evaluate",
    r"room": "package, space or capacity",
}
FOLDERS: Final = ("operator", "serving-image", "charts", "crds", "docs", "examples", "tests", "changelog.d", ".ci")
SUFFIXES: Final = frozenset({".py", ".md", ".yaml", ".tpl", ".txt", ".toml", ""})
OWN: Final = "tests/unit/test_language.py"
GENERATED: Final = ("charts/conch/files", "crds/", "docs/reference/inferenceservice.md")
_WORDS: Final = {re.compile(rf"(?<![a-zA-Z])(?:{words})(?![a-zA-Z])", re.IGNORECASE): words for words in INSTEAD}


def find_words(file: Path) -> list[str]:
    """Return the words of a file, each with its line and what to write in its place."""
    return [
        f"{file.relative_to(ROOT)}:{number}: {found[0]!r}: write {INSTEAD[words]}"
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        for pattern, words in _WORDS.items()
        for found in pattern.finditer(line)
    ]


def test_no_file_has_one_of_the_words() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [ROOT / name for name in tracked if (name.startswith(FOLDERS) or "/" not in name) and _is_read(name)]
    found = [line for file in files if file.is_file() for line in find_words(file)]
    assert not found, "\n".join(found)


def _is_read(name: str) -> bool:
    path = Path(name)
    return path.suffix in SUFFIXES and path.name != "LICENSE" and not name.startswith((*GENERATED, OWN))


def test_the_words_are_found_in_any_form() -> None:
    assert all(
        pattern.search(f"It {words.split('|')[0]}, now.") for pattern, words in _WORDS.items() if "?" not in words
    )
    assert not any(pattern.search("mushroom, stallion, taskmaster, essays") for pattern in _WORDS)
