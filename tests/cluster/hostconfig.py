"""What image builds must know about the machine: its package sources, at run time only.

Mirrors, proxies and certificates are the machine's business. They are read here, mounted into the steps of a
build, and never become part of an image or of the repository.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.shell import run

SUITE = "bookworm"
INSIDE = "/mnt"
"""Where the folder of certificates is mounted during a build; every Debian has that folder, empty."""

NO_CACHES = """Acquire::Languages "none";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };
"""
"""The settings of apt in Debian's own image: without them each layer has caches of 80 MB. A build sees them only here,
because the machine's are mounted over them."""

_APT = Path("/etc/apt")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_APT_OPTION = re.compile(r"Acquire::(Check-|Retries|http|https)")
_PIP_PATHS = ("cert", "client_cert", "client-cert")


@dataclass(frozen=True)
class Source:
    """One entry of the machine's apt sources."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""

    def stanza(self) -> str:
        """Return the entry in apt's deb822 format."""
        lines = [f"Types: deb\nURIs: {self.uri}\nSuites: {' '.join(self.suites)}"]
        lines += [f"Components: {' '.join(self.components)}"]
        lines += [f"Signed-By: {self.signed_by}"] if self.signed_by else []
        return "\n".join(lines) + "\n"


def parse_deb822(text: str) -> list[Source]:
    """Return the entries of a ``.sources`` file."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line for line in paragraph.splitlines() if line.strip() and not line.startswith("#")]
        fields = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes") != "no":
            suites, components = tuple(fields["suites"].split()), tuple(fields.get("components", "").split())
            uris = fields["uris"].split()
            found += [Source(uri, suites, components, fields.get("signed-by", "")) for uri in uris]
    return found


def parse_one_line(text: str) -> list[Source]:
    """Return the entries of a ``sources.list`` file."""
    found = []
    for line in text.splitlines():
        words = re.sub(r"\[.*?\]", "", line.partition("#")[0]).split()
        if len(words) >= 4 and words[0] == "deb":
            found.append(Source(words[1], (words[2],), tuple(words[3:])))
    return found


def debian_sources(apt: Path = _APT, suite: str = SUITE) -> list[Source]:
    """Return the machine's sources of the Debian release that the images are made of."""
    found: list[Source] = []
    for path in [apt / "sources.list", *sorted(apt.glob("sources.list.d/*"))]:
        if path.suffix == ".sources":
            found += parse_deb822(path.read_text())
        elif path.suffix == ".list" and path.exists():
            found += parse_one_line(path.read_text())
    wanted = [s for s in found if "main" in s.components and all(name.startswith(suite) for name in s.suites)]
    if not any(suite in source.suites for source in wanted):
        message = f"the machine's apt sources have no entry for Debian {suite}"
        raise ClusterError(message, hint="use a machine with Debian 12, or one with docker or podman")
    return wanted


def mirror(sources: list[Source]) -> str:
    """Return the address from which a base system can be made."""
    return next(source.uri for source in sources if SUITE in source.suites)


def apt_options(dump: str, certificates: str) -> str:
    """Return those of the machine's apt options that set how to reach its sources."""
    lines = [line for line in dump.splitlines() if _APT_OPTION.match(line)]
    return "\n".join([*lines, f'Acquire::https::CAInfo "{certificates}";']) + "\n"


def pip_config(listing: str, certificates: str) -> str:
    """Return a ``pip.conf`` with what ``pip config list`` printed, settings of the environment winning."""
    settings: dict[str, str] = {}
    lines = [line for line in listing.splitlines() if "=" in line]
    for line in sorted(lines, key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2].strip()
        settings[key] = certificates if key in _PIP_PATHS else value.strip().strip("'\"").replace("\\n", " ")
    links = settings.get("find-links", settings.get("find_links", ""))
    if links.startswith("/"):  # a folder of this machine is not there in the build
        settings = {key: value for key, value in settings.items() if key not in ("find-links", "find_links")}
    settings.setdefault("cert", certificates)
    lines = ["[global]", *(f"{key.replace('_', '-')} = {value}" for key, value in settings.items())]
    return "\n".join(lines) + "\n"


def _pip_listing() -> str:
    """Return what pip on PATH knows (its site-wide file included), with the environment's settings."""
    pip = shutil.which("pip") or shutil.which("pip3")
    listing = run([pip, "config", "list"], check=False).stdout if pip else ""
    known = {key.removeprefix("PIP_").lower(): value for key, value in os.environ.items() if key.startswith("PIP_")}
    known.pop("config_file", None)
    return "\n".join([listing, *(f":env:.{key.replace('_', '-')}='{value}'" for key, value in known.items())]).strip()


def write(folder: Path) -> list[str]:
    """Write the machine's configuration below ``folder``; returns the ``--volume`` options of a build."""
    for part in ("sources", "options", "certificates"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    certificates = f"{INSIDE}/ca-certificates.crt"
    (folder / "sources" / "debian.sources").write_text("\n".join(s.stanza() for s in debian_sources()))
    (folder / "sources.list").write_text("")
    dump = run(["apt-config", "dump"]).stdout
    (folder / "options" / "99machine.conf").write_text(apt_options(dump, certificates))
    (folder / "options" / "no-caches.conf").write_text(NO_CACHES)
    (folder / "pip.conf").write_text(pip_config(_pip_listing(), certificates))
    shutil.copyfile(_CERTIFICATES, folder / "certificates" / _CERTIFICATES.name)
    mounts = {
        "sources": "/etc/apt/sources.list.d",
        "options": "/etc/apt/apt.conf.d",
        "certificates": INSIDE,
        "pip.conf": "/etc/pip.conf",
    }
    return [f"--volume={folder / name}:{target}:ro" for name, target in mounts.items()]
