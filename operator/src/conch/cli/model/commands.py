"""`kubectl conch model`: pack, encrypt, sign, verify, inspect and push the files of a model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click

from conch.cli.extras import import_extras
from conch.cli.model.text import Words, build_text
from conch.cli.options import FORMATS, CommandError, Format
from conch.cli.printing import print_value
from conch_contract.verification import SIGNATURE_FILE

# Modules, and their packages for pip.
_AGENT: Final = {"conch_agent": "conch-agent"}
_SIGNER: Final = {"model_signing": "model-signing", "OpenSSL": "pyopenssl"}
_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_PATH: Final = click.Path(path_type=Path)


@click.group()
def model() -> None:
    """Make, sign, encrypt and upload a model.

    \b
    kubectl conch model pack model --to packed --version 3
    kubectl conch model encrypt packed --to encrypted --recipient age1...
    kubectl conch model sign encrypted --key key
    kubectl conch model push encrypted s3://models/magika
    """  # noqa: D301  click's mark of a paragraph that keeps its lines


def _needs(packages: Mapping[str, str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator of a command that imports packages of the extra kubectl-conch[model]."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**options: Any) -> None:
            import_extras("model", packages)
            command(**options)

        return run

    return decorate


_PRINTED: Final = click.option(
    "-o", "--output", type=click.Choice(FORMATS), default="text", show_default=True, help="Output format."
)


@model.command()
@click.argument("folder", type=_FOLDER)
@click.option("--to", "target", type=_PATH, required=True, help="Folder to make, or a file that ends with .tar.zst.")
@click.option("--version", type=Words(), default="", help="Version of the model.")
@click.option("--author", type=Words(), default="", help="Its author.")
@click.option("--notes", type=Words(), default="", help="Notes for its users.")
@_PRINTED
@_needs(_AGENT)
def pack(folder: Path, target: Path, output: Format, **texts: str) -> None:
    """Write FOLDER with a manifest of its content.

    Links, devices and names that no agent fetches are refused; names that are never part of a model are left out. The
    digest is that of storage.verify.digest and of the status.
    """
    from conch.cli.model.folder import report_failures  # noqa: PLC0415  here and below: packages of an extra
    from conch.cli.model.inspecting import inspect_path  # noqa: PLC0415
    from conch.cli.model.manifest import build_manifest, read_folder  # noqa: PLC0415
    from conch.cli.model.packing import copy_folder, is_archive, write_archive  # noqa: PLC0415

    if any(texts.values()) and (folder / SIGNATURE_FILE).exists():
        raise CommandError(f"{folder} is signed, and the signature covers its manifest; set texts before it is signed")
    with report_failures():
        content = read_folder(folder)
        manifest = build_manifest(content.files, content.manifest, texts)
        (write_archive if is_archive(target) else copy_folder)(folder, target, manifest)
        _print(output, inspect_path(target))


@model.command()
@click.argument("folder", type=_FOLDER)
@click.option("--to", "target", type=_PATH, required=True, help="Folder to make.")
@click.option("--recipient", "recipients", multiple=True, help="Public key of age, age1...; repeatable.")
@click.option("--recipients-file", "files", type=_FILE, multiple=True, help="File with public keys, one a line.")
@_PRINTED
@_needs(_AGENT)
def encrypt(folder: Path, target: Path, recipients: tuple[str, ...], files: tuple[Path, ...], output: Format) -> None:
    """Encrypt the files of FOLDER with age, each for all recipients.

    An identity is made by age-keygen. storage.decrypt.secretRef names the Secret with its file.
    """
    from conch.cli.model.encryption import encrypt_folder, parse_recipients  # noqa: PLC0415
    from conch.cli.model.folder import report_failures  # noqa: PLC0415
    from conch.cli.model.inspecting import inspect_path  # noqa: PLC0415

    with report_failures():
        encrypt_folder(folder, target, parse_recipients(recipients, files))
        _print(output, inspect_path(target))


@model.command()
@click.argument("folder", type=_FOLDER)
@click.option("--key", type=_FILE, required=True, help="Private key in PEM, of P-256, P-384 or P-521.")
@click.option("--certificate", type=_FILE, help="Certificate of the key in PEM.")
@click.option("--chain", type=_FILE, multiple=True, help="Certificate of an authority in PEM; repeatable.")
@_PRINTED
@_needs({**_AGENT, **_SIGNER})
def sign(folder: Path, key: Path, certificate: Path | None, chain: tuple[Path, ...], output: Format) -> None:
    """Sign FOLDER by OpenSSF Model Signing, into its file model.sig."""
    from conch.cli.model.folder import report_failures  # noqa: PLC0415
    from conch.cli.model.inspecting import inspect_path  # noqa: PLC0415
    from conch.cli.model.signing import sign_folder  # noqa: PLC0415

    if bool(chain) != bool(certificate):
        raise CommandError("--certificate and --chain are used together; set both, or sign with the key alone")
    with report_failures():
        sign_folder(folder, key, certificate, chain)
        _print(output, inspect_path(folder))


@model.command()
@click.argument("folder", type=_FOLDER)
@click.option("--trust", type=_FILE, multiple=True, help="Public key or root certificate in PEM; repeatable.")
@click.option("--digest", default="", help="Digest that the files must have, sha256:...")
@_PRINTED
@_needs(_AGENT)
def verify(folder: Path, trust: tuple[Path, ...], digest: str, output: Format) -> None:
    """Verify digest and signature of FOLDER as an agent does, and its manifest."""
    from conch.cli.model.folder import report_failures  # noqa: PLC0415
    from conch.cli.model.inspecting import inspect_path  # noqa: PLC0415
    from conch.cli.model.signing import verify_folder  # noqa: PLC0415

    if digest and not re.fullmatch("sha256:[0-9a-f]{64}", digest):
        raise CommandError(
            f"--digest {digest[:80]!r}: expected sha256: and 64 hexadecimal digits, as inspect prints it"
        )
    if not (trust or digest):
        raise CommandError("nothing to verify; set --trust, --digest or both")
    with report_failures():
        checks = asyncio.run(verify_folder(folder, trust, digest))
        _print(output, {**inspect_path(folder), **checks})


@model.command()
@click.argument("source")
@_PRINTED
@_needs(_AGENT)
def inspect(source: str, output: Format) -> None:
    """Print the manifest of SOURCE: a folder, an archive of pack, or a storageUri.

    Credentials of a storageUri are read from environment variables with the names of the keys of a storage Secret, and
    those of a registry from Docker's configuration.
    """
    from conch.cli.model.folder import report_failures  # noqa: PLC0415
    from conch.cli.model.inspecting import inspect_path, inspect_uri  # noqa: PLC0415

    if not source:
        raise CommandError("SOURCE is empty; name a folder, an archive of pack, or a storageUri")
    with report_failures():
        _print(output, asyncio.run(inspect_uri(source)) if "://" in source else inspect_path(Path(source)))


@model.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("target")
@_PRINTED
@_needs(_AGENT)
def push(source: Path, target: str, output: Format) -> None:
    """Upload SOURCE to TARGET: s3://, oci://, or https:// by PUT.

    SOURCE is a folder, and for https:// an archive of pack. Files that the target has are not sent again, so a command
    that was interrupted goes on when it is run again.
    """
    from conch.cli.model.folder import report_failures  # noqa: PLC0415
    from conch.cli.model.inspecting import read_content  # noqa: PLC0415
    from conch.cli.model.manifest import build_value  # noqa: PLC0415
    from conch.cli.model.pushing import push_source  # noqa: PLC0415

    with report_failures():
        content = read_content(source)
        outcome = push_source(source, target, content)
        _print(output, {"source": str(source), **build_value(content), **outcome.to_value()})


def _print(output: Format, value: dict[str, Any]) -> None:
    print_value(output, value, build_text(value))
