"""Repeats a write that met a write of another client: both had read the same version of the object."""

from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeVar

from conch.write.errors import CallError

CONFLICT: Final = 409  # the object was written after it was read, or created meanwhile

Object = TypeVar("Object")
Result = TypeVar("Result")


async def retry_on_conflict(
    write: Callable[[Object], Awaitable[Result]],
    read: Callable[[CallError], Awaitable[Object]],
    seen: Object,
    tries: int = 10,
    codes: Collection[int] = (CONFLICT,),
) -> Result:
    """Return what `write` returns for an object as it was last read.

    As client-go's retry.RetryOnConflict, without its waits: each try reads the object first, which takes time enough.

    Args:
        write: writes the object over the one that was read.
        read: reads the object again after a conflict, which it may raise to try no more.
        seen: the object as read for the first try.
        tries: at most, the first one included.
        codes: HTTP status codes that are a conflict.

    Raises:
        CallError: the conflict of the last try, or any other error.
    """
    for _ in range(tries - 1):
        try:
            return await write(seen)
        except CallError as error:
            if error.code not in codes:
                raise
            seen = await read(error)
    return await write(seen)
