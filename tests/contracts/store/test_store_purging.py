"""Purging, on both databases: what is deleted is gone, and what it cost still adds up."""

import sqlite3
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from promptmill import retention
from promptmill.clock import SystemClock
from promptmill.errors import InvalidTransition
from promptmill.retention import Retention
from promptmill.states import JobState
from promptmill.store import batches, failures, jobs, ledger, purging, results, retrying
from promptmill.store.purging import Part
from promptmill.store.tables import METADATA, job, purged_batch, reply
from promptmill.usage import Usage
from promptmill.webhooks import Secrets
from workers.notices import Herald
from workers.upkeep import Upkeep

PROMPT, ANSWER, QUOTE = "a question nobody may keep", "an answer nobody may keep", "quoted by an error"
HASH, TEMPLATE = "hash of what was asked", "print of a template"
BOTH = frozenset({Part.PROMPTS, Part.ANSWERS})


def ended_batch(world: Any, jobs_: int = 2) -> Any:
    """One job failed, the others were answered."""
    made = world.batch(jobs_, shared={"model": "m", "system": PROMPT}, content_hash=HASH, template=TEMPLATE)
    failed, *answered = world.running(made)
    with world.database.begin() as conn:
        failure = world.failure(failed)
        closed = world.closed(failed, "prompt_rejected", cost_nanos=0, error_message=QUOTE)
        jobs.fail(conn, [jobs.Failure(job_id=failed.job_id, token=failed.token, error_kind=failure.error_kind, attempt=closed)], world.now)  # fmt: skip
        jobs.complete(conn, [world.completion(each, ANSWER, parsed={"a": ANSWER}) for each in answered], world.now)  # fmt: skip
    return world.row(made)


def purge(world: Any, made: Any, *parts: Part) -> None:
    retention.purge(world.database, made, frozenset(parts), clock=SystemClock(), sleep=lambda _: None)


def everything_stored(world: Any) -> str:
    with world.database.read() as conn:
        rows = [row for table in METADATA.tables.values() for row in conn.execute(select(table)).all()]
    return repr(rows)


def test_prompts_answers_and_what_errors_quote_are_gone_and_the_ledger_adds_up(world: Any) -> None:
    made = ended_batch(world, 5)
    purge(world, made, *BOTH)
    left = everything_stored(world)
    secrets = (PROMPT, ANSWER, QUOTE, HASH, TEMPLATE, "What is 3?", "print of 3")
    assert not [secret for secret in secrets if secret in left]
    world.assert_adds_up(made)
    after = world.row(made)
    assert (after.cost_nanos, after.succeeded, after.errored) == (made.cost_nanos, 4, 1)
    assert purging.gone(after.options) == BOTH
    assert after.purged_at is not None
    assert (
        purging.why_gone(after)
        == f"the prompts and answers of {made.name} were purged on {after.purged_at:%Y-%m-%d}"
    )


def test_one_part_may_go_and_the_other_stay(world: Any) -> None:
    made = ended_batch(world)
    purge(world, made, Part.PROMPTS)
    with world.database.read() as conn:
        failed, answered = results.iterate(conn, made.id)
    assert (answered.text, answered.source) == (ANSWER, None)
    assert failed.error is not None
    assert failed.error.message is None
    purge(world, made, Part.ANSWERS)
    assert purging.gone(world.row(made).options) == BOTH
    assert ANSWER not in everything_stored(world)


def test_everything_leaves_no_row_of_the_batch_and_touches_no_other(world: Any) -> None:
    made, other = ended_batch(world), ended_batch(world)
    purge(world, made, Part.EVERYTHING)
    with world.database.read() as conn:
        assert batches.find_by_name(conn, made.name) is None
        assert made.id not in repr(conn.execute(select(job)).all())
        assert len(list(results.iterate(conn, other.id))) == 2
    world.assert_adds_up(other)


def test_of_a_rehearsal_purged_of_everything_the_number_of_its_calls_stays_and_of_a_real_batch_nothing(
    world: Any,
) -> None:
    rehearsal, real = ended_batch(world), world.batch(1, simulated=False)
    world.complete(*world.running(real))
    for made in (rehearsal, world.row(real)):
        purge(world, made, Part.EVERYTHING)
    with world.database.read() as conn:
        assert conn.execute(select(purged_batch)).all() == [(rehearsal.id, 2, rehearsal.ended_at)]


def test_what_runs_is_refused(world: Any) -> None:
    made = world.batch(2)
    with pytest.raises(InvalidTransition, match="is active: only a batch that has ended can be purged"):
        purge(world, made, *BOTH)
    assert "What is 1?" in everything_stored(world)


def test_a_purged_batch_is_not_retried(world: Any) -> None:
    made = ended_batch(world)
    purge(world, made, Part.ANSWERS)
    with world.database.begin() as conn:
        page = retrying.page_to_retry(conn, made.id, [JobState.ERRORED])
        assert page is not None
        with pytest.raises(InvalidTransition, match=r"were purged on .*: submit its file again with --new"):
            retrying.retry(conn, made.id, page.ids, [JobState.ERRORED], world.now)


def test_a_purge_that_broke_off_keeps_others_out_and_goes_on(world: Any) -> None:
    made = ended_batch(world, 30)

    def breaks_off(_jobs: int, _of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retention.purge(world.database, made, BOTH, clock=SystemClock(), progress=breaks_off)
    half = world.row(made)
    assert purging.why_gone(half) == f"the prompts and answers of {made.name} are being purged"
    assert half.purged_at is None
    assert retention.to_delete(half, BOTH) == BOTH
    purge(world, made, *BOTH)
    assert retention.to_delete(world.row(made), BOTH) == frozenset()


def test_pages_leave_out_no_job_whatever_their_size(world: Any) -> None:
    made = ended_batch(world, 25)
    with world.database.begin() as conn:
        purging.begin(conn, made.id, BOTH)
    first, looks = 0, 0
    while first is not None:
        with world.database.begin() as conn:
            first = purging.empty_page(conn, made.id, BOTH, first, 7)
        looks += 1
    assert looks == 4
    assert "What is" not in everything_stored(world)


def test_groups_of_failures_say_nothing_of_what_is_gone(world: Any) -> None:
    made = ended_batch(world)
    purge(world, made, *BOTH)
    with world.database.read() as conn:
        (group,) = failures.groups(conn, made.id)
    assert (group.jobs, group.kind, group.message) == (1, "prompt_rejected", None)


def test_retention_names_what_is_kept_too_long(world: Any) -> None:
    made = ended_batch(world)
    kept = Retention(answers_days=0, everything_days=36_500)
    assert [(row.id, parts) for row, parts in retention.due(world.database, kept)] == [
        (made.id, {Part.ANSWERS})
    ]
    purge(world, made, Part.ANSWERS)
    assert list(retention.due(world.database, kept)) == []
    assert list(retention.due(world.database, Retention())) == []


def test_each_part_is_due_at_its_own_age() -> None:
    ended = datetime(2026, 1, 1, tzinfo=UTC)
    kept = Retention(prompts_days=1, answers_days=7)
    assert kept.due(ended, ended + timedelta(hours=23)) == frozenset()
    assert kept.due(ended, ended + timedelta(days=1)) == {Part.PROMPTS}
    assert kept.due(ended, ended + timedelta(days=7)) == BOTH


def test_retention_reads_no_batch_that_is_purged_already(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BATCHES", 2)
    made = [ended_batch(world) for _ in range(5)]
    purge(world, made[0], *BOTH)
    purge(world, made[1], Part.ANSWERS)
    purge(world, made[2], Part.PROMPTS)
    moment = datetime.now(UTC)
    with world.database.read() as conn:
        by_prompts = purging.old(conn, {Part.PROMPTS: moment})
        by_both = purging.old(conn, {Part.PROMPTS: moment, Part.ANSWERS: moment})
        by_all = purging.old(conn, {Part.EVERYTHING: moment, Part.ANSWERS: moment})
        too_young = purging.old(conn, {Part.PROMPTS: world.now - timedelta(days=1)})
    assert {each.id for each in by_prompts} == {made[each].id for each in (1, 3, 4)}
    assert {each.id for each in by_both} == {made[each].id for each in (1, 2, 3, 4)}
    assert (len(by_all), list(too_young)) == (5, [])
    found = retention.due(world.database, Retention(prompts_days=0, answers_days=0))
    assert {row.id: set(parts) for row, parts in found} == {
        made[1].id: {Part.PROMPTS}, made[2].id: {Part.ANSWERS}, made[3].id: BOTH, made[4].id: BOTH,
    }  # fmt: skip
    purge(world, made[1], Part.PROMPTS)
    with world.database.read() as conn:
        assert made[1].id not in {
            each.id for each in purging.old(conn, {Part.PROMPTS: moment, Part.ANSWERS: moment})
        }


def given_up_and_purged(world: Any, *parts: Part) -> Any:
    """A job whose worker was taken for dead, in a batch that was purged since; its worker may return."""
    made = world.batch(1)
    (lease,) = world.running(made)
    with world.database.begin() as conn:
        closed = world.closed(lease, "lost", cost_nanos=None, usage=Usage(), usage_raw=None)
        jobs.fail(conn, [jobs.Failure(job_id=lease.job_id, token=lease.token, error_kind="lost", attempt=closed)], world.now)  # fmt: skip
    if parts:
        purge(world, made, *parts)
    return made, lease


def test_an_answer_that_comes_after_the_purge_is_counted_and_not_kept(world: Any) -> None:
    made, lease = given_up_and_purged(world, *BOTH)
    with world.database.begin() as conn:
        assert jobs.complete(conn, [world.completion(lease, ANSWER, parsed={"a": ANSWER})], world.now)
    assert world.row(made).succeeded == 1
    assert ANSWER not in everything_stored(world)
    world.assert_adds_up(made)


@pytest.mark.parametrize("part", [Part.PROMPTS, Part.ANSWERS])
def test_what_an_error_quotes_that_comes_after_the_purge_is_not_kept(world: Any, part: Part) -> None:
    made, lease = given_up_and_purged(world, part)
    closed = world.closed(lease, "prompt_rejected", cost_nanos=0, status=400, error_message=QUOTE)
    late = jobs.Failure(job_id=lease.job_id, token=lease.token, error_kind="prompt_rejected", attempt=closed)
    with world.database.begin() as conn:
        jobs.fail(conn, [late], world.now)
    with world.database.read() as conn:
        (tried,) = ledger.attempts_of(conn, batch_id=made.id)
    assert (tried.outcome, tried.status, tried.error_message) == ("prompt_rejected", 400, None)
    assert QUOTE not in everything_stored(world)
    world.assert_adds_up(made)


def test_nothing_comes_back_to_a_batch_whose_deletion_broke_off(world: Any) -> None:
    (made, answered), (_, failed) = given_up_and_purged(world), given_up_and_purged(world)
    with world.database.begin() as conn:
        for each in batches.list_recent(conn):
            purging.begin(conn, each.id, frozenset({Part.EVERYTHING}))
        jobs.complete(conn, [world.completion(answered, ANSWER)], world.now)
        closed = world.closed(failed, "prompt_rejected", error_message=QUOTE)
        jobs.fail(conn, [jobs.Failure(job_id=failed.job_id, token=failed.token, error_kind="x", attempt=closed)], world.now)  # fmt: skip
    assert not [each for each in (ANSWER, QUOTE) if each in everything_stored(world)]
    world.assert_adds_up(made)


@pytest.fixture
def built_without_secure_delete(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the SQLite of many a Python is; that of Debian overwrites unasked."""
    connect = sqlite3.dbapi2.connect

    def plain(*given: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*given, **named)
        connection.execute("PRAGMA secure_delete = OFF")
        return connection

    monkeypatch.setattr(sqlite3.dbapi2, "connect", plain)


def left_in_files(url: str, *secrets: str) -> list[str]:
    file = Path(url.removeprefix("sqlite:///"))
    left = b"".join(each.read_bytes() for each in file.parent.glob(f"{file.name}*"))
    return [secret for secret in secrets if secret.encode() in left]


@pytest.mark.usefixtures("built_without_secure_delete")
def test_sqlite_keeps_no_remains_in_its_files_not_even_of_what_was_replaced(
    world_of: Any, sqlite_url: str
) -> None:
    world = world_of(sqlite_url)
    cut_off = "a cut answer that another took the place of" * 1_000
    made = world.batch(1)
    (lease,) = world.running(made)
    with world.database.begin() as conn:
        jobs.complete(conn, [world.completion(lease, cut_off)], world.now)
    assert left_in_files(sqlite_url, cut_off[:40])
    with world.database.begin() as conn:
        conn.execute(update(reply).values(text="short", message={}))
    made = ended_batch(world, 90)
    purge(world, made, *BOTH)
    assert retention.forget(world.database, clock=SystemClock(), patience=0)
    assert left_in_files(sqlite_url, cut_off[:40], PROMPT, ANSWER, QUOTE, "What is 17?") == []


def test_a_purge_holds_up_no_writer_while_somebody_reads_sqlite(world_of: Any, sqlite_url: str) -> None:
    world, reader, writer = (world_of(sqlite_url) for _ in range(3))
    made = ended_batch(world, 5)
    waits: list[float] = []
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.01):  # SQLite's lock is nobody's turn: who never pauses keeps it from the purge
            began = time.monotonic()
            writer.alive("another")
            waits.append(time.monotonic() - began)

    writing = threading.Thread(target=write)
    with reader.database.read() as conn:
        conn.execute(select(job)).all()
        writing.start()
        began = time.monotonic()
        purge(world, made, *BOTH)
        assert not retention.forget(world.database, clock=SystemClock(), patience=0.5)
        took = time.monotonic() - began
        stop.set()
        writing.join()
    assert took < 5
    assert max(waits) < 2
    assert retention.forget(world.database, clock=SystemClock(), patience=5)
    assert left_in_files(sqlite_url, PROMPT, ANSWER) == []


def test_a_worker_that_steps_down_leaves_the_rest_of_a_batch_to_the_next(world: Any) -> None:
    made = ended_batch(world, 3)
    herald = Herald(world.database, Secrets())
    kept = Upkeep(world.database, herald, Retention(prompts_days=0), SystemClock())
    kept.step_down()
    assert kept.delete_old() == 0
    assert world.row(made).purged_at is None
