"""Words that names and sentences do without. `language_todo.txt` lists the files that still have some."""

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
TODO: Final = Path(__file__).with_name("language_todo.txt")
FOLDERS: Final = ("operator", "serving-image", "charts", "crds", "docs", "examples", "tests", "changelog.d", ".ci")
SUFFIXES: Final = frozenset({".py", ".md", ".yaml", ".tpl", ".txt", ".toml", ""})
OWN: Final = "tests/unit/test_language.py"
GENERATED: Final = ("charts/conch/files", "crds/", "docs/reference/inferenceservice.md", "tests/unit/language_todo.txt")
_WORDS: Final = {re.compile(rf"(?<![a-zA-Z])(?:{words})(?![a-zA-Z])", re.IGNORECASE): words for words in INSTEAD}


def find_words(file: Path) -> list[str]:
    """Return the words of a file, each with its line and what to write in its place."""
    return [
        f"{file.relative_to(ROOT)}:{number}: {found[0]!r}: write {INSTEAD[words]}"
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        for pattern, words in _WORDS.items()
        for found in pattern.finditer(line)
    ]


def test_files_have_none_of_the_words_but_for_a_list_that_shrinks() -> None:
    todo = frozenset(TODO.read_text().split())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [name for name in tracked if name.startswith(FOLDERS) or "/" not in name]
    files = [
        name
        for name in files
        if Path(name).suffix in SUFFIXES and Path(name).name != "LICENSE" and not name.startswith((*GENERATED, OWN))
    ]
    wrong = {name: found for name in files if (ROOT / name).is_file() and (found := find_words(ROOT / name))}
    new = [line for name, found in wrong.items() if name not in todo for line in found]
    assert not new, "\n".join(new)
    assert not todo - wrong.keys(), "these are clean: remove them from language_todo.txt"


def test_the_words_are_found_in_any_form() -> None:
    assert all(
        pattern.search(f"It {words.split('|')[0]}, now.") for pattern, words in _WORDS.items() if "?" not in words
    )
    assert not any(pattern.search("mushroom, stallion, taskmaster, essays") for pattern in _WORDS)
