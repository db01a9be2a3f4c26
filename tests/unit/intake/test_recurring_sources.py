"""What a schedule submits: templates filled in for one due time, and the same again out of the table."""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from promptmill.clock import ManualClock
from promptmill.errors import InvalidInput
from promptmill.intake.admit import survey
from promptmill.intake.options import SubmitOptions
from promptmill.intake.recurring import Occasion, Recurring, filled_in
from promptmill.states import Lane

DUE = datetime(2026, 11, 24, 2, tzinfo=ZoneInfo("Asia/Shanghai"))
OCCASION = Occasion("nightly", DUE)


def test_the_date_is_that_of_the_zone() -> None:
    assert filled_in("{{ date }} {{ schedule }} {{ run }} {{ due.hour }}", OCCASION.variables, "name") == (
        "2026-11-24 nightly 20261124T020000+0800 2"
    )


def test_a_run_in_utc_ends_with_z() -> None:
    assert Occasion("n", DUE.astimezone(UTC)).run == "20261123T180000Z"


def test_a_path_begins_from_the_folder_where_it_was_typed() -> None:
    recurring = Recurring(source="data-{{ date }}.jsonl", folder="/srv/files")

    assert recurring.source_at(OCCASION) == "/srv/files/data-2026-11-24.jsonl"
    assert Recurring(source="/else/{{ date }}", folder="/srv").source_at(OCCASION) == "/else/2026-11-24"


def test_options_are_those_of_the_due_time() -> None:
    options = SubmitOptions(system="Today is {{ date }}.", tags={"team": "a"})
    at = Recurring(options=options, deadline_after=timedelta(hours=6)).options_at(OCCASION)

    assert at.name == "nightly-20261124T020000+0800"
    assert at.system == "Today is 2026-11-24."
    assert at.deadline == DUE + timedelta(hours=6)
    assert at.tags == {"team": "a", "schedule": "nightly", "due": "2026-11-24T02:00:00+08:00"}


def test_a_run_by_hand_does_not_take_the_name_of_the_run_of_the_day() -> None:
    recurring = Recurring(options=SubmitOptions(name="n-{{ date }}"))

    assert recurring.name_at(OCCASION) == "n-2026-11-24"
    assert recurring.name_at(Occasion("nightly", DUE, manual=True)) == "n-2026-11-24-020000.000000"


def test_all_of_it_survives_the_table() -> None:
    options = SubmitOptions(
        model="claude-haiku-5-5", max_tokens=7, system="s", template="{{ x }}", columns=["a"],
        schema={"type": "object"}, name="n-{{ run }}", limit=3, skip_invalid=True, lane=Lane.REALTIME,
        budget_nanos=5, priority=10.0, tags={"a": "b"}, extra={"parse": "json"}, params={"top_k": 3},
    )  # fmt: skip
    recurring = Recurring(
        prompts=("p {{ date }}",), folder="/srv", options=options, deadline_after=timedelta(hours=1)
    )

    again = Recurring.of(json.loads(json.dumps(recurring.document())))

    assert again.document() == recurring.document()
    assert again.options_at(OCCASION).budget_nanos == 5
    assert again.source_at(OCCASION) == ["p 2026-11-24"]


def test_an_option_of_a_newer_version_is_said_and_not_left_out() -> None:
    document = Recurring(source="a").document() | {"options": {"temper": "hot"}}

    with pytest.raises(InvalidInput, match="does not know the option temper"):
        Recurring.of(document)


@pytest.mark.parametrize(
    "template", ["{{ dat }}", "{{ due.tzinfo.__class__.__mro__ }}", "{% for %}", "{{ 1 // 0 }}"]
)
def test_a_template_that_is_wrong_is_refused(template: str) -> None:
    with pytest.raises(InvalidInput, match="known are due, date, schedule, run"):
        filled_in(template, OCCASION.variables, "name")


def test_the_template_of_rows_knows_the_date_and_a_field_of_a_row_goes_first() -> None:
    options = SubmitOptions(model="claude-haiku-5-5", template="{{ text }} of {{ date }} in {{ run }}")
    at = Recurring(options=options).options_at(OCCASION)

    found = survey(
        [{"text": "News", "run": "mine"}], at, simulated=True, clock=ManualClock(DUE.astimezone(UTC))
    )
    same = survey(["News of 2026-11-24 in mine"], SubmitOptions(model="claude-haiku-5-5", name="n"), simulated=True,
                  clock=ManualClock(DUE.astimezone(UTC)))  # fmt: skip

    assert found.content_hash == same.content_hash


@pytest.mark.parametrize(
    ("template", "is_plain"),
    [
        ("no template", True),
        ("{{ date }}/{{ due.year }} {{row.text}}", True),
        ('{{ due.strftime("%d.%m.%Y") }}', True),
        ("{% for a in range(9) %}{% endfor %}", False),
        ("{{ '%999999999d' % 1 }}", False),
        ("{{ date * 9 }}", False),
        ("{{ date|replace('2', date) }}", False),
        ("{{ date.ljust(99999999) }}", False),
        ("{# {{ date }} #}", False),
    ],
)
def test_only_a_template_that_names_variables_is_filled_in_where_time_matters(
    template: str, is_plain: bool
) -> None:
    assert Recurring(prompts=("a", template)).is_plain is is_plain
    assert Recurring(prompts=("a",), options=SubmitOptions(template=template)).is_plain is is_plain
