"""Wheels of small Python packages, and a static index of them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path


def build_wheel(name: str, version: str, files: Mapping[str, str], *, compressed: bool = False) -> tuple[str, bytes]:
    """Return the file name and the content of a wheel.

    Args:
        name: The package.
        version: Its version.
        files: Its files by path.
        compressed: True for files of less bytes in the wheel.
    """
    info = f"{name}-{version}.dist-info"
    texts = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: conch\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        for path, text in texts.items():
            entry = zipfile.ZipInfo(path)  # of 1980, so that its digest is the same each time
            entry.external_attr = (0o100755 if "/scripts/" in path else 0o100644) << 16
            wheel.writestr(entry, text, method)
        record = "".join(f"{path},,\n" for path in (*texts, f"{info}/RECORD"))
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD"), record)
    return f"{name}-{version}-py3-none-any.whl", content.getvalue()


def add_to_index(folder: Path, name: str, file: str, content: bytes) -> str:
    """Add a wheel to an index that a web server of files serves (PEP 503); return its hash as pip takes it.

    Args:
        folder: The folder of the index.
        name: The package.
        file: The wheel's file name.
        content: Its content.
    """
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    (home / file).write_bytes(content)
    links = "".join(f'<a href="{each.name}">{each.name}</a>' for each in sorted(home.glob("*.whl")))
    (home / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
