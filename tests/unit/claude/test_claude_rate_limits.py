"""What the Rate Limits API states, in the shapes of both API versions."""

from typing import Any

import pytest

from promptmill.claude.rate_limits import RateLimitGroup, read_page
from promptmill.claude.replies import MalformedAnswer
from promptmill.dimensions import DIMENSIONS, Dimension

LIMITS = [
    {"type": "requests_per_minute", "value": 1000},
    {"type": "input_tokens_per_minute", "value": 2_500_000},
    {"type": "input_tokens_per_minute_cache_aware", "value": 2_000_000},
    {"type": "output_tokens_per_minute", "value": 400_000},
]


def entry(**fields: Any) -> dict[str, Any]:
    group = {"id": "rlg_1", "type": "model_group", "display_name": "Claude Opus 4.x"}
    return {
        "id": "rl_1",
        "type": "rate_limit",
        "group": group,
        "models": ["a", "b"],
        "limits": LIMITS,
    } | fields


def read(**fields: Any) -> RateLimitGroup:
    (group,) = read_page({"data": [entry(**fields)], "next_page": None})
    return group


def per_minute(*limits: dict[str, Any]) -> list[float | None]:
    group = read(limits=list(limits))
    return [group.per_minute(dimension) for dimension in DIMENSIONS]


def test_an_entry_of_the_newest_version_names_its_group_and_models() -> None:
    group = read()

    assert (group.kind, group.name, group.models) == ("model_group", "Claude Opus 4.x", ("a", "b"))


def test_an_entry_of_the_older_version_is_understood_too() -> None:
    older = entry(group_type="model_group")
    del older["group"]

    (group,) = read_page({"data": [older]})

    assert (group.kind, group.name, group.models) == ("model_group", "rl_1", ("a", "b"))


def test_the_input_limit_that_leaves_out_cache_reads_is_preferred() -> None:
    assert per_minute(*LIMITS) == [1000, 2_000_000, 400_000]


def test_the_older_input_limit_is_taken_where_there_is_no_other() -> None:
    assert per_minute(LIMITS[0], LIMITS[1])[1] == 2_500_000


def test_a_limiter_that_is_missing_beside_others_is_no_limit() -> None:
    assert per_minute(LIMITS[0]) == [1000, 0, 0]


def test_nothing_is_concluded_from_an_entry_without_any_limiter() -> None:
    assert per_minute() == [None, None, None]


def test_a_limit_on_both_kinds_of_tokens_says_nothing_about_either() -> None:
    assert per_minute(LIMITS[0], {"type": "tokens_per_minute", "value": 9}) == [1000, None, None]


def test_a_limit_of_zero_is_not_taken_for_no_limit() -> None:
    assert per_minute({"type": "requests_per_minute", "value": 0}, LIMITS[3]) == [None, 0, 400_000]


def test_a_value_that_is_no_number_is_left_out() -> None:
    assert read(limits=[{"type": "requests_per_minute", "value": None}, "nonsense"]).limits == {}


def test_a_group_without_models_is_kept_under_its_kind() -> None:
    batch = {"id": "rlg_2", "type": "batch"}

    group = read(group=batch, models=None, limits=[{"type": "enqueued_batch_requests", "value": 200_000}])

    assert (group.kind, group.name, group.models) == ("batch", "rlg_2", ())
    assert group.limits == {"enqueued_batch_requests": 200_000}
    assert group.per_minute(Dimension.REQUESTS) == 0


def test_what_is_no_list_is_malformed() -> None:
    with pytest.raises(MalformedAnswer):
        read_page({"error": {}})
