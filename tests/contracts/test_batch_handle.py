"""A batch in the hands of a Python program: its words are checked, and waiting ends when nothing can come any more."""

from pathlib import Path

import pytest

import producers
from producers.tables import status
from promptmill.clock import SystemClock
from promptmill.errors import BudgetExceeded, InvalidInput, InvalidTransition
from promptmill.runtime import open_database
from promptmill.settings import Settings
from promptmill.states import PausedBy
from promptmill.store import batches, control
from promptmill.testing import a_batch

LIMIT = 5_000_000_000


@pytest.fixture
def three(tmp_path: Path) -> producers.Batch:
    """A batch of three prompts that nobody answers."""
    settings = Settings(database_url=f"sqlite:///{tmp_path}/promptmill.db", home=tmp_path / "home")
    with open_database(settings) as database:
        made = a_batch(database, 3, name="three", budget_nanos=LIMIT)
    return producers.batch(made.id, settings=settings)


def test_a_word_without_meaning_is_named(three: producers.Batch) -> None:
    with pytest.raises(InvalidInput, match="say what to change"):
        three.set()
    with pytest.raises(InvalidInput, match="bogus is none of pending, "):
        three.results(only="bogus")
    with pytest.raises(InvalidInput, match="no URL"):
        three.audit(ledger="bla")


def test_its_audit_is_told_in_a_line(three: producers.Batch) -> None:
    report = three.audit()

    assert report.ok
    assert repr(report).startswith("AuditReport('three', ok=True, checks=")
    assert len(repr(report)) < 100


def test_waiting_for_a_batch_that_its_budget_has_stopped_says_how_to_go_on(three: producers.Batch) -> None:
    with open_database(three.settings) as database, database.begin() as connection:
        control.hold(connection, three.id, "budget of $5.00", SystemClock().now(), by=PausedBy.BUDGET)

    with pytest.raises(BudgetExceeded, match="promptmill set three --budget "):
        three.wait(progress=lambda _: None, timeout=20)


def test_waiting_for_a_key_goes_on_and_warns_once(three: producers.Batch) -> None:
    with open_database(three.settings) as database, database.begin() as connection:
        why = "key main was refused (401 invalid x-api-key)"
        control.hold(connection, three.id, why, SystemClock().now(), by=PausedBy.KEY)

    with (
        pytest.warns(UserWarning, match="put a valid key into its file") as warned,
        pytest.raises(TimeoutError),
    ):
        three.wait(timeout=1.2)

    assert len(warned) == 1
    assert why in str(warned[0].message)


def test_what_is_so_already_may_be_asked_for_again(three: producers.Batch) -> None:
    assert [three.pause().batch.state for _ in range(2)] == ["paused", "paused"]
    assert [three.resume().batch.state for _ in range(2)] == ["active", "active"]
    assert [three.cancel().batch.state for _ in range(2)] == ["ended", "ended"]
    with pytest.raises(
        InvalidTransition, match=r"three has ended: .* promptmill retry three --only canceled"
    ):
        three.pause()


def test_submitted_again_it_warns_where_nothing_goes_on(tmp_path: Path) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/promptmill.db", home=tmp_path / "home")

    def submit() -> producers.Batch:
        return producers.submit(["one"], name="one", model="claude-haiku-5-5", settings=settings)

    submit()
    submit().cancel()

    with pytest.warns(UserWarning, match="one has ended: .* promptmill retry one --only canceled"):
        submit()


def test_one_that_was_cut_while_it_was_submitted_says_so(three: producers.Batch) -> None:
    with open_database(three.settings) as database, database.begin() as connection:
        new = batches.NewBatch(name="half", model="m", shared={}, endpoint="none", simulated=True)
        batches.create(connection, new, SystemClock().now())
    half = producers.batch("half", settings=three.settings)

    told = status(half.look())
    assert "admitting: it is being submitted, 0 rows so far" in told
    assert "type the same command again" in told
    half.cancel()
    with pytest.raises(InvalidTransition, match=r"half has ended: it was canceled half-way.* --new"):
        half.resume()
