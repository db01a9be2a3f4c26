"""Purging, on both databases: what is deleted is gone, and what it cost still adds up."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from promptmill import retention
from promptmill.clock import SystemClock
from promptmill.errors import InvalidTransition
from promptmill.retention import Retention
from promptmill.states import JobState
from promptmill.store import batches, failures, jobs, purging, results, retrying
from promptmill.store.purging import Part
from promptmill.store.tables import METADATA, job

PROMPT, ANSWER, QUOTE = "a question nobody may keep", "an answer nobody may keep", "quoted by an error"
BOTH = frozenset({Part.PROMPTS, Part.ANSWERS})


def ended_batch(world: Any, jobs_: int = 2) -> Any:
    """One job failed, the others were answered."""
    made = world.batch(jobs_, shared={"model": "m", "system": PROMPT}, content_hash="hash", template="print")
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
    assert not [secret for secret in (PROMPT, ANSWER, QUOTE, "What is 3?", "print of 3") if secret in left]
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
    assert retention.due(world.database, kept) == []
    assert retention.due(world.database, Retention()) == []


def test_each_part_is_due_at_its_own_age() -> None:
    ended = datetime(2026, 1, 1, tzinfo=UTC)
    kept = Retention(prompts_days=1, answers_days=7)
    assert kept.due(ended, ended + timedelta(hours=23)) == frozenset()
    assert kept.due(ended, ended + timedelta(days=1)) == {Part.PROMPTS}
    assert kept.due(ended, ended + timedelta(days=7)) == BOTH


def test_sqlite_keeps_no_remains_in_its_files(world_of: Any, sqlite_url: str) -> None:
    world = world_of(sqlite_url)
    made = ended_batch(world, 90)
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    with world.database.read() as conn:
        assert conn.scalar(select(func.count()).select_from(job)) == 90
    purge(world, made, *BOTH)
    left = b"".join(each.read_bytes() for each in file.parent.glob(f"{file.name}*"))
    assert not [secret for secret in (PROMPT, ANSWER, QUOTE, "What is 17?") if secret.encode() in left]
