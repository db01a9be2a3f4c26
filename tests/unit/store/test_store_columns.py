"""What goes into a column comes out of it, or is made storable in a way that can be seen."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite

from promptmill.store.columns import UTCDateTime, json_text, storable, time_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))
MOMENTS = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001  # bounds of aware moments


@given(JSON)
def test_json_comes_back_as_it_was(value: object) -> None:
    assert json.loads(json_text(value)) == value


@given(ANY_TEXT)
def test_json_of_any_text_can_be_stored_and_comes_back(text: str) -> None:
    stored = json_text([text])
    assert "\x00" not in stored
    assert stored.encode().decode() == stored
    assert json.loads(stored) == [text]


@given(ANY_TEXT)
def test_plain_text_can_be_stored_and_keeps_its_length(text: str) -> None:
    stored = storable(text)
    assert stored.encode().decode() == stored
    assert "\x00" not in stored
    assert len(stored) == len(text)


@pytest.mark.parametrize("text", ["", "plain", "中文 😀", "\u2028\x01\n"])
def test_text_that_can_be_stored_is_left_alone(text: str) -> None:
    assert storable(text) == text


def test_fields_keep_their_order_and_characters() -> None:
    assert json_text({"z": "é", "a": [1, 2]}) == '{"z":"é","a":[1,2]}'


@given(st.lists(MOMENTS, min_size=2))
def test_the_order_of_stored_times_is_the_order_of_time(moments: list[datetime]) -> None:
    assert sorted(map(time_text, moments)) == [time_text(each) for each in sorted(moments)]


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()], ids=["sqlite", "postgres"])
def test_a_time_comes_back_in_utc_whatever_its_zone(dialect: object) -> None:
    column = UTCDateTime()
    moment = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    stored = column.process_bind_param(moment, dialect)
    read = column.process_result_value(stored, dialect)
    assert read == moment
    assert read is not None
    assert read.tzinfo is UTC


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()], ids=["sqlite", "postgres"])
def test_a_time_without_a_zone_is_refused(dialect: object) -> None:
    with pytest.raises(ValueError, match="zone"):
        UTCDateTime().process_bind_param(datetime(2026, 3, 1), dialect)  # noqa: DTZ001  # the point of the test
