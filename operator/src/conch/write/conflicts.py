"""Repeats a write after a conflict: another client has written the object since it was read."""

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
    attempts: int = 10,
    codes: Collection[int] = (CONFLICT,),
) -> Result:
    """Return what `write` returns for an object as it was last read.

    As client-go's RetryOnConflict, without its waits: each attempt reads the object first, which takes enough time.

    Args:
        write: writes the object over the one that was read.
        read: reads the object again after a conflict; it may raise the conflict to end the attempts.
        seen: the object as read for the first attempt.
        attempts: at most, the first one included.
        codes: HTTP status codes that are a conflict.

    Raises:
        CallError: the conflict of the last attempt, or any other error.
    """
    for _ in range(attempts - 1):
        try:
            return await write(seen)
        except CallError as error:
            if error.code not in codes:
                raise
            seen = await read(error)
    return await write(seen)
