"""What a person reads about limits: the page, the sentences, the plain lines."""

from dataclasses import replace
from typing import Any

import pytest

from producers.limits_live import lines_of, write_lines
from producers.limits_now import Backlog, LimitsNow, SetLimits, set_limits
from producers.limits_tables import page, set_table
from producers.limits_wording import allowed, share, waiting, why
from promptmill import settings
from promptmill.dimensions import DIMENSIONS, Amounts
from promptmill.limits import DimensionState, Hindrance, LimitSource, Pool, PoolState
from promptmill.store.backlog import WaitingJobs

GROUP = "claude-haiku-5-5"
NOBODY = (SetLimits(None, None, None, None, None),)


def dimension(index: int, limit: float | None = 10_000_000.0, **changes: Any) -> DimensionState:
    state = DimensionState(
        dimension=DIMENSIONS[index],
        limit=limit,
        source=LimitSource.PROBED if limit else LimitSource.NONE,
        level=9_999_999.0,
        capacity=10_000_000.0,
        burst=0.0,
        foreign=0.0,
        pace=0.0,
        used_per_minute=9_876_543.0,
    )
    return replace(state, **changes)


def pool(**changes: Any) -> PoolState:
    state = PoolState(
        pool=Pool("default", GROUP),
        dimensions=tuple(dimension(index) for index in range(3)),
        in_flight=12,
        paused_for=0.0,
        waiting=0,
        processes_waiting=1,
        share=1.0,
        mean=Amounts(1, 100, 100),
        ramp=1.0,
        easing=1.0,
        held_by=None,
    )
    return replace(state, **changes)


def jobs(name: str, pending: int, queued: int = 0) -> WaitingJobs:
    return WaitingJobs(
        batch_id=f"batch_{name}",
        batch_name=name,
        model_group=GROUP,
        pending=pending,
        queued=queued,
        running=0,
    )


def now(*pools: PoolState, backlog: Backlog | None = None, **changes: Any) -> LimitsNow:
    return replace(LimitsNow(pools, None, NOBODY, backlog or Backlog(workers=1)), **changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"held_by": Hindrance.PAUSED, "paused_for": 12.3}, "paused for 12 s after a 429"),
        ({"held_by": Hindrance.STARTING, "ramp": 0.4}, "gentle start: 40 % of the limit"),
        (
            {"held_by": Hindrance.OVERLOADED, "easing": 0.6},
            "the server was overloaded (529): 60 % of the limit for now",
        ),
        ({"held_by": Hindrance.INPUT_TOKENS}, "waits its turn: 10,000,000 input tokens a minute"),
        ({"held_by": Hindrance.SAVING_UP}, "saving up for a call with a large input"),
        ({}, "nothing waits"),
    ],
)
def test_why_the_next_call_waits_is_one_plain_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert why(pool(**changes), Backlog(workers=1)) == sentence


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        (120.0, "waits its turn: 120 requests a minute, one every 0.5 s"),
        (50.0, "waits its turn: 50 requests a minute, one every 1.2 s"),
        (4_000.0, "waits its turn: 4,000 requests a minute"),
        (1.0, "waits its turn: 1 request a minute, one every 60 s"),
        (0.6, "waits its turn: 0.6 requests a minute, one every 100 s"),
    ],
)
def test_a_call_that_is_paced_waits_its_turn_and_no_limit_is_said_to_be_reached(
    limit: float, sentence: str
) -> None:
    paced = pool(held_by=Hindrance.REQUESTS, dimensions=(dimension(0, limit), dimension(1), dimension(2)))

    assert why(paced, None) == sentence


def test_the_largest_share_of_another_program_is_named() -> None:
    taken = (dimension(0), dimension(1, foreign=3_000_000.0), dimension(2, foreign=1_000_000.0))

    sentence = why(pool(held_by=Hindrance.OTHER_PROGRAMS, dimensions=taken), None)

    assert sentence == "another program takes 30 % of the input tokens"


def test_every_hindrance_has_its_sentence() -> None:
    sentences = {why(pool(held_by=each), None) for each in Hindrance}

    assert len(sentences) == len(Hindrance)


def test_jobs_that_wait_without_a_worker_are_told_how_to_get_one() -> None:
    assert "no worker is running" in why(pool(), Backlog((jobs("b", 5),), workers=0))


def test_the_largest_batches_are_named_and_the_others_counted() -> None:
    many = [
        jobs("first", 500, 10),
        jobs("second", 100),
        jobs("third", 50),
        jobs("fourth", 5),
        jobs("fifth", 1),
    ]

    assert waiting(many) == (
        "666, 10 of them handed to workers: first 510, second 100, third 50, 2 other batches 6"
    )
    assert waiting([]) == "none"


def test_what_is_allowed_says_why_unless_the_next_sentence_does() -> None:
    starting = pool(share=0.4, ramp=0.4)

    assert allowed(starting) == "40 % of the limit (gentle start)"
    assert allowed(replace(starting, held_by=Hindrance.STARTING)) == "40 % of the limit"
    assert allowed(pool()) == "all of the limit"


def test_a_small_share_is_not_shown_as_nothing() -> None:
    assert (share(0.001), share(0.0), share(0.976)) == ("< 1 %", "0 %", "98 %")


def test_the_page_keeps_to_eighty_columns_with_the_largest_figures() -> None:
    backlog = Backlog(tuple(jobs(f"a-batch-with-quite-a-long-name-{n}", 1_000_000, 250) for n in range(9)), 1)
    others = [
        pool(pool=Pool("default", f"claude-other-{n}"), in_flight=0, processes_waiting=0) for n in range(3)
    ]
    quiet = [
        replace(each, dimensions=tuple(dimension(i, used_per_minute=0.0) for i in range(3)))
        for each in others
    ]

    text = page(now(pool(held_by=Hindrance.OVERLOADED, easing=0.5), *quiet, backlog=backlog))

    assert max(len(line) for line in text.splitlines()) <= 80
    assert "claude-other-2" in text


def idle(group: str, account: str = "default", **changes: Any) -> PoolState:
    quiet = tuple(dimension(index, used_per_minute=0.0) for index in range(3))
    return pool(pool=Pool(account, group), dimensions=quiet, in_flight=0, processes_waiting=0, **changes)


NEVER: dict[str, Any] = {"mean": Amounts(0, 0, 0)}


def test_groups_that_never_made_a_call_are_counted_and_not_listed() -> None:
    known = [idle(f"claude-never-{number}", **NEVER) for number in range(9)]

    text = page(now(pool(), idle("claude-opus-5"), *known))

    assert "claude-opus-5 " in text
    assert "claude-never" not in text
    assert text.endswith("Known and never used: 9 model groups; promptmill limits --json has them")


def test_a_group_with_limits_of_its_own_is_listed_before_its_first_call() -> None:
    set_ = (*NOBODY, SetLimits(None, "claude-opus-5", 50, None, None), SetLimits("a", "claude-b", 5, 5, 5))
    pools = [
        idle("claude-opus-5", **NEVER),
        idle("claude-b", "simulated/a", **NEVER),
        idle("claude-b", **NEVER),
    ]

    text = page(now(*pools, set_limits=set_))

    assert "claude-opus-5 (default)" in text
    assert "claude-b (simulated/a)" in text
    assert "claude-b (default)" not in text


def test_where_names_are_long_the_figures_stand_below_them() -> None:
    sources = (LimitSource.CONFIGURED, LimitSource.PROBED, LimitSource.LEARNED)
    longest = tuple(dimension(index, source=source) for index, source in enumerate(sources))
    pools = [
        replace(idle("claude-opus-4.x-fast", "simulated/research-department"), dimensions=longest),
        idle("claude-haiku-5-5", "product"),
    ]
    quiet = [
        replace(each, dimensions=tuple(replace(one, used_per_minute=0.0) for one in each.dimensions))
        for each in pools
    ]

    lines = page(now(*quiet)).splitlines()

    assert max(map(len, lines)) <= 80
    assert "claude-opus-4.x-fast (simulated/research-department)" in lines


def test_what_waits_is_said_once_where_several_accounts_share_the_work() -> None:
    other = pool(pool=Pool("research", GROUP))

    text = page(now(pool(), other, backlog=Backlog((jobs("b", 5),), 1)))

    assert text.count("jobs waiting") == 1
    assert text.endswith("5, 0 of them handed to workers: b 5 (for any of these accounts)")


def test_no_job_waits_for_a_simulator_that_nobody_calls_any_more() -> None:
    left = idle(GROUP, "simulated/default@127.0.0.1:1")
    called = pool(pool=Pool("simulated/default@127.0.0.1:2", GROUP))
    waiting = Backlog((jobs("b", 5),), 1)

    text = page(now(left, called, backlog=waiting))

    assert "5, 0 of them handed to workers: b 5\n" in text
    assert text.index("NOT IN USE") < text.index("127.0.0.1:1)")
    assert page(now(left, backlog=waiting)).endswith("handed to workers: b 5")


def test_a_dimension_without_a_limit_says_so() -> None:
    text = page(now(pool(dimensions=(dimension(0, None), dimension(1), dimension(2)))))

    assert "requests             none" in text


def test_without_a_redis_what_is_set_is_shown_and_why_not_more() -> None:
    text = page(
        now(silence="nothing runs in this data folder", set_limits=(SetLimits(None, None, 60, None, 0),))
    )

    assert text.startswith("Nothing runs in this data folder; only what is set is known.")
    assert text.splitlines()[-1].split() == ["every", "model", "group", "60", "learned", "none"]


def test_where_nothing_is_set_the_page_says_what_to_do() -> None:
    assert "promptmill limits probe" in set_table(NOBODY)


def test_what_is_set_is_told_for_all_and_for_single_accounts_and_groups() -> None:
    found = settings.load(
        environ={},
        limits={
            "rpm": 60,
            "groups": {"claude-opus-4.x": {"otpm": 8000}},
            "accounts": {"research": {"rpm": 5}},
        },
    )

    assert set_limits(found) == (
        SetLimits(None, None, 60, None, None),
        SetLimits(None, "claude-opus-4.x", None, None, 8000),
        SetLimits("research", None, 5, None, None),
    )


def test_away_from_a_terminal_a_pool_is_one_line_to_be_searched() -> None:
    (line,) = lines_of(now(pool(held_by=Hindrance.REQUESTS), backlog=Backlog((jobs("b", 5),), 1)))

    assert line.startswith(
        "limits account=default group=claude-haiku-5-5 in_flight=12 in_line=1 jobs_waiting=5"
    )
    assert "held_by=requests requests=9876543/10000000" in line


def test_lines_come_every_few_seconds_however_often_is_looked() -> None:
    written: list[str] = []
    ticks = iter(range(100))

    write_lines(iter([now(pool())] * 12), written.append, every_s=5, monotonic=lambda: next(ticks))

    assert 2 <= len(written) <= 4
