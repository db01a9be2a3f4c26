"""Prompt caching: written first, read later, and never before the first answer began."""

from typing import Any

import pytest

from promptmill.simulator.caching import CachePlan, PromptCache, breakpoints
from promptmill.simulator.models import Menu, ServedModel
from promptmill.simulator.tokens import count_prompt

LONG = "The rules of the house are long and must be read with care. " * 200
MARK = {"type": "ephemeral"}


def model(name: str = "claude-sonnet-5") -> ServedModel:
    served = Menu().find(name)
    assert served is not None
    return served


def body(question: str = "Why?", *, mark: dict[str, Any] | None = MARK, system: str = LONG) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": system}
    if mark is not None:
        block["cache_control"] = mark
    return {"system": [block], "messages": [{"role": "user", "content": question}]}


def ask(
    cache: PromptCache, request: dict[str, Any], now: float, begins_at: float, name: str = "claude-sonnet-5"
) -> CachePlan:
    served = model(name)
    total = count_prompt(request, dense=served.facts.dense_tokenizer)
    plan = cache.plan(request, total, served, now)
    assert plan.uncached + plan.read + plan.write_5m + plan.write_1h == total
    cache.commit(plan, now=now, begins_at=begins_at)
    return plan


def test_the_first_request_writes_and_the_next_reads() -> None:
    cache = PromptCache()
    first = ask(cache, body("One?"), 0.0, 1.0)
    second = ask(cache, body("Two?"), 2.0, 3.0)
    assert first.write_5m > 2_000
    assert second.read == first.write_5m
    assert second.write_5m == 0
    assert second.limited == second.uncached < 50


def test_requests_sent_together_all_write() -> None:
    cache = PromptCache()
    ask(cache, body("One?"), 0.0, 1.0)
    together = ask(cache, body("Two?"), 0.5, 1.5)
    assert together.read == 0
    assert together.write_5m > 0
    assert ask(cache, body("Three?"), 1.0, 2.0).read > 0


def test_an_entry_expires_and_a_read_refreshes_it() -> None:
    cache = PromptCache()
    ask(cache, body(), 0.0, 0.0)
    assert ask(cache, body(), 200.0, 200.0).read > 0
    assert ask(cache, body(), 400.0, 400.0).read > 0
    assert ask(cache, body(), 701.0, 701.0).read == 0


def test_an_hour_is_counted_apart_and_lives_longer() -> None:
    cache = PromptCache()
    hour = {"type": "ephemeral", "ttl": "1h"}
    first = ask(cache, body(mark=hour), 0.0, 0.0)
    assert (first.write_5m, first.write_1h > 0) == (0, True)
    assert ask(cache, body(mark=hour), 3_000.0, 3_000.0).read == first.write_1h


def test_a_prefix_below_the_minimum_is_silently_not_cached() -> None:
    assert ask(PromptCache(), body(system="Short."), 0.0, 0.0).write_5m == 0


@pytest.mark.parametrize("other", ["claude-opus-5", "claude-sonnet-4-6"])
def test_a_cache_belongs_to_a_model(other: str) -> None:
    cache = PromptCache()
    ask(cache, body(), 0.0, 0.0)
    assert ask(cache, body(), 1.0, 1.0, other).read == 0


def test_changing_the_effort_makes_another_prefix() -> None:
    cache = PromptCache()
    ask(cache, body(), 0.0, 0.0)
    assert ask(cache, {**body(), "output_config": {"effort": "low"}}, 1.0, 1.0).read == 0


def test_the_top_level_breakpoint_caches_the_whole_prompt() -> None:
    cache = PromptCache()
    request = {**body(mark=None), "cache_control": MARK}
    first = ask(cache, request, 0.0, 0.0)
    assert first.uncached == 0
    longer = {
        **request,
        "messages": [
            *request["messages"],
            {"role": "assistant", "content": "So."},
            {"role": "user", "content": "And?"},
        ],
    }
    second = ask(cache, longer, 1.0, 1.0)
    assert second.read == first.write_5m
    assert second.write_5m > 0


def test_every_breakpoint_is_counted() -> None:
    assert breakpoints({**body(), "cache_control": MARK}) == 2


def test_a_token_factor_multiplies_the_cached_part_too() -> None:
    plain, tripled = Menu().find("claude-sonnet-5"), Menu(token_factor=3.0).find("claude-sonnet-5")
    assert plain is not None
    assert tripled is not None
    total = count_prompt(body(), dense=True)
    one, three = (
        PromptCache().plan(body(), factor * total, served, 0.0)
        for factor, served in ((1, plain), (3, tripled))
    )
    assert three.write_5m == 3 * one.write_5m
