"""What a requirements.txt may have, and what is refused, with line, text and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from conch_agent.environments import read_requirements
from conch_agent.environments.interpreter import find_interpreter
from conch_agent.environments.store import compute_key
from conch_agent.reasons import Failure, Reason

HASH = "--hash=sha256:" + "a" * 64
PLACE = "s3://models/m: requirements.txt"


def read(folder: Path, text: str, *, is_signed: bool = False) -> tuple[str, ...]:
    (folder / "requirements.txt").write_text(text)
    return read_requirements(folder / "requirements.txt", PLACE, [], is_signed=is_signed).lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a==1\n", ("a==1",)),
        ("# list\n\na == 1.0  # why\r\nb[x]===2 ; python_version < '4'", ("a==1.0", 'b[x]===2; python_version < "4"')),
        (f"a==1 \\\n    {HASH} \\\n    {HASH}\nb==2 {HASH}", (f"a==1 {HASH} {HASH}", f"b==2 {HASH}")),
        (f"a==1 {HASH} \\", (f"a==1 {HASH}",)),
        ("\ufeffa==1", ("a==1",)),
        ("  # a comment \\\na==1", ("a==1",)),
        ("a==1 \\\n  # a comment\nb==2", ("a==1", "b==2")),
        ("a==1" + " " * 500_000, ("a==1",)),
        ("a==1+cu121\nb==1!2.0rc1", ("a==1+cu121", "b==1!2.0rc1")),
    ],
)
def test_packages_with_one_version_each(text: str, lines: tuple[str, ...], tmp_path: Path) -> None:
    assert read(tmp_path, text) == lines


REFUSED = {
    "a>=1": "line 1: 'a>=1' is not one version",
    "\n\na": "line 3: 'a' is not one version",
    "a==1.*": "line 1: 'a==1.*' is not one version",
    "a==1,!=2": "line 1: 'a==1,!=2' is not one version",
    "a==1\n-r other.txt": "line 2: '-r other.txt' is an option",
    "--extra-index-url https://x": "is an option. List packages alone; the index is PIP_INDEX_URL of the storage",
    "-e .": "is an option",
    "a @ https://example.com/a.whl": "has a URL. Write name==version",
    "https://example.com/a.whl": "is no requirement",
    "./a.whl": "is no requirement",
    "a==1 --hash=md5:abc": "expected --hash=sha256:<64 hexadecimal digits>",
    "a===${PIP_INDEX_URL}": "has a variable, which pip would replace",
    "a==1; " + "(" * 5000: "is no requirement: maximum recursion depth exceeded",
    "a" + " " * 500_000 + "b": "is no requirement",
    f"a==1\nb==2 {HASH}": "'a==1' has no hash, and others have one",
    f"a===--hash=1\nb==2 {HASH}": "'a===--hash=1' has no hash, and others have one",
    "a==1 --no-binary": "is no requirement",
    "a==1 --hash=": "is no requirement",
    "a=1": "is no requirement",
    "# nothing": "has no package",
    "a==1\x1b[31m": "is no requirement",
    "\\": "has no package",
}


@pytest.mark.parametrize("text", REFUSED)
def test_other_lines_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        read(tmp_path, text)
    assert caught.value.reason == Reason.INVALID_CONFIG
    assert caught.value.message.startswith(PLACE)
    assert REFUSED[text] in caught.value.message
    assert "\x1b" not in caught.value.message


def test_files_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    for content in (b"\xff\xfe", b"a==1\n" * 300_000):
        file.write_bytes(content)
        with pytest.raises(Failure, match=r"requirements\.txt cannot be read"):
            read_requirements(file, PLACE, [], is_signed=False)


def test_a_signed_model_has_hashes_or_the_wheels(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="'b==2' has no hash, and the model's signature covers no package of an index"):
        read(tmp_path, "b==2", is_signed=True)
    assert read(tmp_path, f"a==1 {HASH}", is_signed=True)
    wheels = [tmp_path / "wheels" / "a-1-py3-none-any.whl"]
    assert read_requirements(tmp_path / "requirements.txt", PLACE, wheels, is_signed=True).wheels


@pytest.mark.parametrize(
    "name", ["wheels", "wheels/index.html", "wheels/a-1.tar.gz", "wheels/a.whl", "wheels/sub/a-1-py3-none-any.whl"]
)
def test_files_that_are_no_wheels(name: str, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("a==1")
    with pytest.raises(Failure, match=f"{PLACE}: '{name}' is no wheel: .*Remove it") as caught:
        read_requirements(tmp_path / "requirements.txt", PLACE, [tmp_path / name], is_signed=False)
    assert caught.value.reason == Reason.INVALID_CONFIG
    many = [tmp_path / f"wheels/a-{number}-py3-none-any.whl" for number in range(1001)]
    with pytest.raises(Failure, match="wheels/ has 1001 files, of which up to 1000 can be read"):
        read_requirements(tmp_path / "requirements.txt", PLACE, many, is_signed=False)


def test_an_environment_is_another_one_with_other_wheels(tmp_path: Path) -> None:
    wheel, interpreter, keys = tmp_path / "wheels/a-1-py3-none-any.whl", find_interpreter(), set[str]()
    (tmp_path / "requirements.txt").write_text("a==1")
    wheel.parent.mkdir()
    for content in ("x", "y", "x"):
        wheel.write_text(content)
        found = read_requirements(tmp_path / "requirements.txt", PLACE, [wheel], is_signed=False)
        keys.add(compute_key(found, interpreter))
    assert len(keys) == 2


@pytest.mark.parametrize(("text", "number"), [("a==1", 2), (f"a==1 {HASH}", 1)])
def test_an_environment_of_another_index_is_another_one_without_hashes(text: str, number: int, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(text)
    found = read_requirements(tmp_path / "requirements.txt", PLACE, [], is_signed=False)
    assert len({compute_key(found, find_interpreter(), index) for index in ("https://a/simple", "")}) == number
