"""Reads pages of pods over HTTP. A pod is the user's: its answer has a maximum size, and no redirect is followed."""

from typing import Final

import aiohttp

from conch.bodies import TooLargeError, read_body

_LIMIT: Final = 1 << 20  # bytes; metrics are tens of kilobytes, a report of the agent is kilobytes

NOT_A_PAGE: Final = "has metrics that cannot be read"
METRICS_PATH: Final = "/metrics"


class PageError(Exception):
    """There is no page: why, as the rest of a sentence that begins with the pod."""


async def read_page(session: aiohttp.ClientSession, ip: str, port: int, path: str = METRICS_PATH) -> str:
    """Return a page of a pod, by default that of its metrics.

    Raises:
        PageError: the pod does not answer, or not with a page.
    """
    host = f"[{ip}]" if ":" in ip else ip
    try:
        async with session.get(f"http://{host}:{port}{path}", allow_redirects=False) as answer:
            if answer.status != 200:
                raise PageError(f"answers {path} with HTTP status {answer.status}")
            return (await read_body(answer.content, _LIMIT)).decode()
    except TooLargeError as error:
        raise PageError(f"has {error} of metrics") from error
    except UnicodeDecodeError as error:
        raise PageError(NOT_A_PAGE) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise PageError(f"does not answer at port {port} ({type(error).__name__})") from error
