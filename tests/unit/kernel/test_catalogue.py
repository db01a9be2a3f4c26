from datetime import date

import pytest

from promptmill.catalogue import CATALOGUE, Catalogue, find_model, group_of, limit_group
from promptmill.errors import ConfigurationError
from promptmill.pricing import price_of
from promptmill.usage import Usage

TODAY = date(2026, 11, 22)


@pytest.mark.parametrize(
    ("group", "models"),
    [
        ("claude-fable-5.x", ["claude-fable-5", "claude-fable-5-1", "claude-fable-5-2"]),
        ("claude-mythos-5.x", ["claude-mythos-5", "claude-mythos-5-1", "claude-mythos-5-2"]),
        (
            "claude-opus-4.x",
            ["claude-opus-4-5", "claude-opus-4-5-20251101", "claude-opus-4-6", "claude-opus-4-8"],
        ),
        ("claude-sonnet-4.x", ["claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "claude-sonnet-4-6"]),
        ("claude-opus-5-5", ["claude-opus-5-5", "claude-opus-5-5-20260922"]),
        ("claude-opus-5", ["claude-opus-5"]),
        ("claude-haiku-4-5", ["claude-haiku-4-5", "claude-haiku-4-5-20251001"]),
        ("claude-opus-9", ["claude-opus-9"]),
    ],
)
def test_models_that_share_a_limit_share_a_group(group: str, models: list[str]) -> None:
    assert {group_of(model) for model in models} == {group}


def test_fast_mode_has_limits_of_its_own() -> None:
    assert limit_group("claude-opus-5-5", "fast") == "claude-opus-5-5-fast"
    assert (
        limit_group("claude-opus-5-5", "standard")
        == limit_group("claude-opus-5-5", None)
        == "claude-opus-5-5"
    )


def test_an_unknown_model_has_no_facts() -> None:
    assert find_model("claude-opus-9") is None


def test_an_alias_means_its_model() -> None:
    assert find_model("claude-haiku-4-5") is find_model("claude-haiku-4-5-20251001")


def test_retirement_is_a_matter_of_the_day() -> None:
    sonnet = find_model("claude-sonnet-4-5")
    assert sonnet is not None
    assert not sonnet.is_retired(TODAY)
    assert sonnet.is_retired(date(2026, 11, 30))


def test_the_earliest_possible_retirement_is_no_retirement() -> None:
    opus = find_model("claude-opus-4-5")
    assert opus is not None
    assert opus.retires_not_before == date(2026, 11, 24)
    assert not opus.is_retired(date(2027, 1, 1))


@pytest.mark.parametrize(
    "model", ["claude-3-opus-20240229", "claude-opus-4-1", "claude-sonnet-4-0", "claude-2.1"]
)
def test_retired_models_are_known_as_such(model: str) -> None:
    facts = find_model(model)
    assert facts is not None
    assert facts.is_retired(TODAY)


def test_every_living_model_has_a_price() -> None:
    alive = [facts for facts in CATALOGUE.models() if not facts.is_retired(TODAY)]
    unpriced = [facts.id for facts in alive if price_of(Usage(input_tokens=1), model=facts.id) is None]
    assert unpriced == []


def test_a_misspelt_name_is_near_living_models_only() -> None:
    assert CATALOGUE.near("claude-sonet-5", TODAY)[0] == "claude-sonnet-5"
    assert "claude-opus-4-1" not in CATALOGUE.near("claude-opus-4-1", TODAY)
    assert CATALOGUE.near("gpt-7", TODAY) == []


def test_a_user_adds_a_model() -> None:
    catalogue = Catalogue(
        {"claude-opus-6": {"group": "opus", "context_window": 2_000_000, "aliases": ["o6"]}}
    )
    facts = catalogue.find_model("o6")
    assert facts is not None
    assert (facts.id, facts.group, facts.context_window) == ("claude-opus-6", "opus", 2_000_000)


def test_a_user_changes_one_fact_and_keeps_the_others() -> None:
    catalogue = Catalogue({"claude-sonnet-4-5": {"retires_on": "2027-03-01"}})
    facts = catalogue.find_model("claude-sonnet-4-5-20250929")
    assert facts is not None
    assert facts.retires_on == date(2027, 3, 1)
    assert facts.group == "claude-sonnet-4.x"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"window": 1}, "models.m: unknown field window"),
        ({"context_window": "wide"}, "models.m.context_window: "),
        ({"retires_on": "soon"}, "models.m.retires_on: "),
    ],
)
def test_a_wrong_fact_names_its_setting(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Catalogue({"m": fields})
