"""Several accounts: the next call takes the key under which it would begin first."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from promptmill.claude.keys import Key, KeyRing, Rest
from promptmill.clock import ManualClock
from promptmill.dimensions import DIMENSIONS, Amounts
from promptmill.errors import NoUsableKey
from promptmill.limits import Ceilings, DeskUnavailable, LocalLimiter, Pool, PoolState
from workers.accounts import Accounts, GroupLimits, add_up

GROUP = "claude-sonnet-5"
BIG, SMALL = Pool("big", GROUP), Pool("small", GROUP)
LIMITS = {"big": Ceilings(900, 90_000, 0), "small": Ceilings(300, 30_000, 0)}


def a_key(label: str, account: str) -> Key:
    return Key(label, SecretStr(label), account)


KEYS = (a_key("one", "big"), a_key("two", "small"), a_key("spare", "big"))


@pytest.fixture
def limiter() -> LocalLimiter:
    return LocalLimiter(ceilings=lambda pool: LIMITS[pool.account], clock=ManualClock())


@pytest.fixture
def accounts(limiter: LocalLimiter) -> Accounts:
    return Accounts(KeyRing(KEYS), lambda: None, limiter.peek)


async def test_calls_are_shared_out_as_the_limits_are(accounts: Accounts) -> None:
    accounts.in_order(GROUP)[0]
    await accounts.look()
    chosen: Counter[str] = Counter()
    with ExitStack() as waiting:
        for _ in range(400):
            key = accounts.in_order(GROUP)[0]
            chosen[key.label] += 1
            waiting.enter_context(accounts.waiting(Pool(key.account, GROUP)))
    assert chosen == {"one": 300, "two": 100}


async def test_before_anything_is_known_accounts_are_equal(accounts: Accounts) -> None:
    with accounts.waiting(BIG):
        assert accounts.in_order(GROUP)[0].account == "small"


async def test_a_paused_account_leaves_its_calls_to_the_other(
    accounts: Accounts, limiter: LocalLimiter
) -> None:
    accounts.in_order(GROUP)[0]
    permit = await limiter.acquire(BIG, Amounts(1, 10, 10), patience=5)
    await limiter.penalise(permit, status=429, retry_after=30)
    await accounts.look()
    with accounts.waiting(SMALL):
        assert accounts.in_order(GROUP)[0].account == "small"


async def test_an_account_that_rests_without_a_date_is_tried_now_and_then_although_another_carries_on(
    accounts: Accounts,
) -> None:
    now = accounts.clock.now()
    accounts.keys.rest("big", Rest(now - timedelta(minutes=11), None, "402"))
    chosen = [[key.label for key in accounts.in_order(GROUP)] for _ in range(3)]
    assert chosen == [["one", "two"], ["two"], ["two"]]


async def test_the_only_account_is_tried_now_and_then_too(accounts: Accounts) -> None:
    now = accounts.clock.now()
    for each in ("big", "small"):
        accounts.keys.rest(each, Rest(now - timedelta(minutes=11), None, "402"))
    assert [len(accounts.in_order(GROUP)) for _ in range(2)] == [1, 1]
    with pytest.raises(NoUsableKey) as caught:
        accounts.in_order(GROUP)
    assert caught.value.asking


async def test_a_second_key_of_an_account_takes_over_when_the_first_is_refused(accounts: Accounts) -> None:
    accounts.keys.retire(KEYS[0], None, "revoked")
    assert [key.label for key in accounts.keys.usable(GROUP)] == ["two", "spare"]


async def test_with_no_usable_key_the_files_are_to_be_read_again(limiter: LocalLimiter) -> None:
    heard: list[str] = []
    accounts = Accounts(KeyRing([]), lambda: heard.append("read"), limiter.peek)
    with pytest.raises(NoUsableKey):
        accounts.in_order(GROUP)
    assert heard == ["read"]


async def test_the_limits_of_all_accounts_add_up(accounts: Accounts) -> None:
    limits, states = await accounts.limits_of(GROUP)
    assert limits == GroupLimits(Amounts(1200, 120_000, 0), 0.0)
    assert [state.pool for state in states] == [BIG, SMALL]


async def test_the_group_is_paused_only_while_all_accounts_are(
    accounts: Accounts, limiter: LocalLimiter
) -> None:
    for pool, seconds in ((BIG, 30), (SMALL, 10)):
        before, _ = await accounts.limits_of(GROUP)
        assert before.paused_s == 0
        permit = await limiter.acquire(pool, Amounts(1, 10, 10), patience=5)
        await limiter.penalise(permit, status=429, retry_after=seconds)
    after, _ = await accounts.limits_of(GROUP)
    assert after.paused_s == 10


async def test_what_another_program_takes_is_not_counted_on(limiter: LocalLimiter) -> None:
    state = await limiter.peek(BIG)
    taken = [one.limit * 0.3 if one.limit else 0.0 for one in state.dimensions]
    shared = _with_foreign(state, taken)
    assert add_up([shared]).per_minute == Amounts(630, 63_000, 0)


async def test_an_account_that_cannot_be_asked_is_left_out() -> None:
    async def nobody(_pool: Pool) -> PoolState:
        raise DeskUnavailable("away")

    accounts = Accounts(KeyRing(KEYS), lambda: None, nobody)
    accounts.in_order(GROUP)[0]
    await accounts.look()
    assert await accounts.limits_of(GROUP) == (GroupLimits(), [])


def _with_foreign(state: PoolState, taken: list[float]) -> PoolState:
    dimensions = tuple(
        replace(state.dimensions[place], foreign=taken[place]) for place in range(len(DIMENSIONS))
    )
    return replace(state, dimensions=dimensions)
