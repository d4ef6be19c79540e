"""Fetches a pod's metrics page. The pod is the user's: what it answers is bounded, and never followed elsewhere."""

from typing import Final

import aiohttp

from conch.bodies import TooLargeError, read_body

_LIMIT: Final = 1 << 20  # bytes; a page is tens of kilobytes

NOT_A_PAGE: Final = "has metrics that cannot be read"


class PageError(Exception):
    """There is no page: why, as the rest of a sentence that begins with the pod."""


async def page(session: aiohttp.ClientSession, ip: str, port: int) -> str:
    """Return a pod's metrics page.

    Raises:
        PageError: the pod does not answer, or not with a page.
    """
    host = f"[{ip}]" if ":" in ip else ip
    try:
        async with session.get(f"http://{host}:{port}/metrics", allow_redirects=False) as answer:
            if answer.status != 200:
                raise PageError(f"answers /metrics with HTTP status {answer.status}")
            return (await read_body(answer.content, _LIMIT)).decode()
    except TooLargeError as error:
        raise PageError(f"has {error} of metrics") from error
    except UnicodeDecodeError as error:
        raise PageError(NOT_A_PAGE) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise PageError(f"does not answer at port {port} ({type(error).__name__})") from error
