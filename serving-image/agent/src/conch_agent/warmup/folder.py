"""The folder of warm-up requests in a model's storage, for the programs of Jobs, which do not fetch the model."""

from __future__ import annotations

from pathlib import Path

from conch_agent.decryption import open_decrypter
from conch_agent.fetch import Fetch
from conch_agent.object_versions import list_files
from conch_agent.settings import Settings
from conch_agent.sources import open_source
from conch_agent.sources.base import Listing
from conch_agent.unpacking import Unpacking
from conch_contract import ModelSource


async def fetch_requests(source: ModelSource, settings: Settings, scratch: Path) -> Path:
    """Fetch the folder of requests from the model's storage, if its warm-up names one.

    Args:
        source: The model in the manifest.
        settings: Paths of the container.
        scratch: Folder of fetched files.

    Returns:
        The folder that has the folder of requests.

    Raises:
        Failure: The folder cannot be fetched.
    """
    if source.warmup is None or not source.warmup.path:
        return scratch
    storage = open_source(source.storage_uri, settings, source.secret)
    listing, _ = await list_files(storage, source.object_versions)
    storage, listing = await Unpacking(storage, scratch / source.name, settings.max_bytes).run(listing)
    items = tuple(item for item in listing.items if item.path.is_relative_to(source.warmup.path))
    if not items:
        return scratch  # read_folder fails, because the folder is missing
    files = (await Fetch(storage, scratch / source.name).run(Listing(items))).files
    if decrypter := await open_decrypter(Listing(items), source, settings, scratch / source.name / "decrypted"):
        await decrypter.run(files)
        return decrypter.folder
    return files
