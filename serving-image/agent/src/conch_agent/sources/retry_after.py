"""The time after which a server accepts a retry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_DELAY: Final = 600.0  # seconds: the retry of a pod waits no longer, whatever the server requests
# Of the header RateLimit, which a hub sends with all answers: seconds until the limit is reset, if none remains.
_RESET: Final = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,9})\b")


def read_delay(headers: Mapping[str, str]) -> float:
    """Return the seconds after which a server accepts a retry; 0 if it has not set any.

    Args:
        headers: Headers of its answer: `Retry-After` of RFC 9110, in seconds or a date, or `RateLimit` of the IETF
            draft `ratelimit-headers`, with the seconds in `t`.

    >>> read_delay({"Retry-After": "7"}), read_delay({"RateLimit": '"api";r=0;t=55'}), read_delay({"Retry-After": "?"})
    (7.0, 55.0, 0.0)
    """
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        pass
    found = _RESET.search(headers.get("RateLimit", ""))
    return float(found[1]) if found else 0.0
