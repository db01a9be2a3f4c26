"""How the words of the Rate Limits API become our model groups."""

from typing import Any

import pytest

from producers.limits_probe import Probe, StatedLimits, by_group, other_limits, probe_limits
from producers.limits_tables import probe_table
from promptmill import settings
from promptmill.claude.rate_limits import RateLimitGroup
from promptmill.errors import ConfigurationError, NotFound

FULL = {
    "requests_per_minute": 1000.0,
    "input_tokens_per_minute_cache_aware": 2_000_000.0,
    "output_tokens_per_minute": 400_000.0,
}
OPUS = RateLimitGroup("model_group", "Claude Opus 4.x", ("claude-opus-4-8", "claude-opus-4-5"), FULL)


def stated(*entries: RateLimitGroup, **set_: Any) -> dict[str, StatedLimits]:
    return {each.group: each for each in by_group(entries, settings.load(environ={}, **set_), "default")}


def values(of: StatedLimits) -> tuple[float | None, ...]:
    return (of.requests, of.input_tokens, of.output_tokens)


def test_models_say_which_of_our_groups_is_meant() -> None:
    found = stated(OPUS)

    assert list(found) == ["claude-opus-4.x"]
    assert values(found["claude-opus-4.x"]) == (1000, 2_000_000, 400_000)
    assert found["claude-opus-4.x"].known


def test_a_model_nobody_has_heard_of_is_a_group_of_its_own_and_is_listed() -> None:
    found = stated(RateLimitGroup("model_group", "Claude Next", ("claude-next-7",), FULL))

    assert not found["claude-next-7"].known
    assert "claude-next-7 is not known here" in probe_table(
        Probe("default", None, tuple(found.values()), (), None)
    )


def test_where_two_entries_are_for_one_group_the_lower_limit_holds() -> None:
    tighter = RateLimitGroup("model_group", "Opus 4.8", ("claude-opus-4-8",), {"requests_per_minute": 50.0})

    assert values(stated(OPUS, tighter)["claude-opus-4.x"]) == (50, 2_000_000, 400_000)


def test_fast_mode_has_limits_of_its_own() -> None:
    fast = {**FULL, "fast_itpmca": 100_000.0, "fast_otpm": 20_000.0}

    found = stated(RateLimitGroup("model_group", "Opus", ("claude-opus-4-8",), fast))

    assert values(found["claude-opus-4.x-fast"]) == (None, 100_000, 20_000)


def test_what_has_no_place_with_us_is_listed() -> None:
    batches = RateLimitGroup("batch", "rlg_2", (), {"enqueued_batch_requests": 200_000.0})
    daily = RateLimitGroup("model_group", "Opus", ("claude-opus-4-8",), {**FULL, "tokens_per_day": 9.0})

    assert [(each.name, each.limiter, each.value) for each in other_limits([batches, daily])] == [
        ("rlg_2", "enqueued_batch_requests", 200_000.0),
        ("Opus", "tokens_per_day", 9.0),
    ]


def test_what_is_set_stands_below_what_is_stated() -> None:
    text = probe_table(Probe("default", None, tuple(stated(OPUS, limits__rpm=60).values()), (), None))

    assert [line.split() for line in text.splitlines()[1:]] == [
        ["claude-opus-4.x", "1,000", "2,000,000", "400,000"],
        ["set,", "for", "every", "model", "group", "60", "-", "-"],
    ]


def test_what_is_set_for_one_group_stands_below_that_group() -> None:
    haiku = RateLimitGroup("model_group", "Haiku", ("claude-haiku-5-5",), FULL)
    groups = stated(OPUS, haiku, limits__groups={"claude-opus-4.x": {"otpm": 8000}})

    text = probe_table(Probe("default", None, tuple(groups.values()), (), None))

    assert [line.split() for line in text.splitlines()[2:]] == [
        ["claude-opus-4.x", "1,000", "2,000,000", "400,000"],
        ["set", "-", "-", "8,000"],
    ]


def test_without_an_admin_key_a_sentence_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match=r"set ANTHROPIC_ADMIN_KEY, or ANTHROPIC_ADMIN_KEY_FILE"):
        probe_limits(settings=settings.load(environ={}))


def test_an_account_without_a_key_is_refused_before_anybody_is_asked() -> None:
    given = settings.load(environ={"ANTHROPIC_ADMIN_KEY": "sk-ant-admin01-x"}, with_admin_key=True)

    with pytest.raises(NotFound, match="there are: default"):
        probe_limits(account="nobody", settings=given)


def test_the_id_of_a_workspace_stands_as_it_is_on_a_line_of_its_own() -> None:
    text = probe_table(Probe("default", "wrkspc_01abc", tuple(stated(OPUS).values()), (), None))

    first, second, *_ = text.splitlines()
    assert first == "wrkspc_01abc"
    assert second.startswith("STATED FOR THE WORKSPACE  REQUESTS")
