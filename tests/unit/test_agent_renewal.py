"""Temporary credentials: few requests, whatever their duration and the number of sources."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable

import pytest

from conch_agent.reasons import Failure, Reason
from conch_agent.sources.renewal import Renewal

Credentials = dict[str, dt.datetime]


class Issuer:
    """Grants credentials for a time, and counts the requests."""

    def __init__(self, life: dt.timedelta) -> None:
        self.life = life
        self.requests = 0

    def build(self, identity: object) -> Renewal[Credentials]:
        async def request(now: dt.datetime) -> Credentials:
            self.requests += 1
            if not self.life:
                raise Failure(Reason.ACCESS_DENIED, "refused")
            return {"expires_at": now + self.life}

        typed: Callable[[dt.datetime], Awaitable[Credentials]] = request
        return Renewal((identity, self), typed)


@pytest.mark.parametrize("life", [dt.timedelta(hours=1), dt.timedelta(minutes=5), dt.timedelta(minutes=1)])
async def test_credentials_of_a_short_duration_are_kept_for_half_of_it(life: dt.timedelta) -> None:
    issuer = Issuer(life)
    renewal = issuer.build("a")
    first = await renewal.read()
    assert await renewal.read() is first
    assert issuer.requests == 1


async def test_credentials_are_renewed() -> None:
    issuer = Issuer(dt.timedelta(microseconds=2))
    renewal = issuer.build("a")
    end = (await renewal.read())["expires_at"]
    while dt.datetime.now(dt.UTC) < end:
        pass
    assert (await renewal.read())["expires_at"] > end
    assert issuer.requests == 2


async def test_sources_of_one_identity_share_credentials() -> None:
    issuer = Issuer(dt.timedelta(hours=1))
    first = await issuer.build("a").read()
    assert [await issuer.build("a").read() for _ in range(1000)] == [first] * 1000
    assert issuer.requests == 1
    await issuer.build("b").read()
    assert issuer.requests == 2, "another identity has its own"


async def test_a_refusal_is_not_shared() -> None:
    issuer = Issuer(dt.timedelta())
    for _ in range(2):
        with pytest.raises(Failure):
            await issuer.build("a").read()
    assert issuer.requests == 2
    issuer.life = dt.timedelta(hours=1)
    assert await issuer.build("a").read()
