"""The folder of warm-up requests in a model's storage, for the programs of Jobs, which do not fetch the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conch_agent.decryption import open_decrypter
from conch_agent.fetch import Fetch
from conch_agent.object_versions import list_files
from conch_agent.places import try_places
from conch_agent.policy import read_policy
from conch_agent.reasons import Failure
from conch_agent.settings import Settings
from conch_agent.sources import open_source
from conch_agent.sources.base import Listing
from conch_agent.threads import run_in_thread
from conch_agent.unpacking import Unpacking
from conch_agent.verification import read_checks
from conch_contract import ModelSource


async def fetch_requests(source: ModelSource, settings: Settings, scratch: Path) -> Path:
    """Fetch the folder of requests from the model's storage, if its warm-up names one.

    They are signed where the model's files have to be. Its digest is not compared: it is that of all files.

    Args:
        source: The model in the manifest.
        settings: Paths of the container.
        scratch: Folder of fetched files.

    Returns:
        The folder that has the folder of requests.

    Raises:
        Failure: The folder cannot be fetched, or a file is not signed.
    """
    if source.warmup is None or not source.warmup.path:
        return scratch
    path, policy = source.warmup.path, await run_in_thread(read_policy, settings)

    async def fetch(place: ModelSource, failures: Sequence[Failure]) -> Path:
        folder = scratch / f"{source.name}-{len(failures)}"  # of each place, whose files are not mixed
        storage = open_source(place.storage_uri, settings, place.secret)
        listing, _ = await list_files(storage, place.object_versions)
        storage, listing = await Unpacking(storage, folder, settings.max_bytes).run(listing)
        checks = await read_checks(storage, listing, place, settings, policy)
        items = tuple(item for item in checks.select(listing).items if item.path.is_relative_to(path))
        if not items:
            return scratch  # read_folder fails, because the folder is missing
        result = await Fetch(storage, folder).run(Listing(items))
        checks.verify_signed(result.sha256)
        if decrypter := await open_decrypter(Listing(items), place, settings, folder / "decrypted"):
            await decrypter.run(result.files)
            return decrypter.folder
        return result.files

    return await try_places(source.places, fetch)
