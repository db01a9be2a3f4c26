"""The command that goes on with a batch: the same words, but never a second batch."""

import sys

import pytest

from producers.cli.going_on import Begun


@pytest.mark.parametrize(
    ("typed", "again"),
    [
        ("run rows.jsonl --tag a=b", "run rows.jsonl --tag a=b"),
        ("run rows.jsonl --new", "run rows.jsonl --name rows-2"),
        ("run --new rows.jsonl --name rows -o out.jsonl", "run rows.jsonl -o out.jsonl --name rows-2"),
        ("run rows.jsonl --name=rows --new", "run rows.jsonl --name rows-2"),
    ],
)
def test_a_second_batch_is_gone_on_with_by_its_name(
    monkeypatch: pytest.MonkeyPatch, typed: str, again: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["promptmill", *typed.split()])
    assert Begun(batch="rows-2").command_to_go_on() == f"promptmill {again}"


@pytest.mark.parametrize("typed", ["run rows.jsonl --budget 1 --json", "run rows.jsonl --budget=1 --json"])
def test_another_budget_takes_the_place_of_the_former(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setattr(sys, "argv", ["promptmill", *typed.split()])
    assert (
        Begun(batch="rows").command_to_go_on(budget="2.5") == "promptmill run rows.jsonl --json --budget 2.5"
    )


def test_before_there_is_a_batch_it_is_to_be_made_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["promptmill", "submit", "rows.jsonl", "--new"])
    assert Begun().command_to_go_on() == "promptmill submit rows.jsonl --new"
