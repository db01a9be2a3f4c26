"""A submission is whole or not at all, once however often it is repeated: on both databases."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from promptmill.clock import ManualClock
from promptmill.errors import InvalidInput, InvalidTransition, NotFound
from promptmill.intake.admit import Admission, admit, read
from promptmill.intake.options import SubmitOptions
from promptmill.intake.storing import store
from promptmill.prompts import fingerprint_of
from promptmill.states import BatchState, JobState, Lane
from promptmill.store import Connection, batches, control, jobs, retrying
from promptmill.store.batches import BatchRow, NewBatch
from promptmill.store.database import Database
from promptmill.store.jobs import LoadedJob, NewJob

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ROWS = [{"prompt": f"What is {n} times {n}?", "n": n} for n in range(450)]


class Stop(Exception):
    """The submitter dies here."""


@pytest.fixture
def submit(database: Database) -> Callable[..., Admission]:
    def submit(source: object, *, simulated: bool = True, progress: Any = None, **options: Any) -> Admission:
        given = SubmitOptions(**{"model": "claude-sonnet-5", **options})
        how: Any = {"simulated": simulated, "clock": ManualClock(NOW), "progress": progress}
        with read(source, given, **how) as reading:
            return admit(database, reading, endpoint="http://127.0.0.1:1", **how)

    return submit


def jobs_of(database: Database, batch_id: str) -> list[LoadedJob]:
    """Every pending job of a sealed batch, in the order of submission."""
    with database.read() as conn:
        ids = [
            pending.id
            for group in jobs.model_groups_waiting(conn, batch_id)
            for pending in jobs.select_pending(conn, batch_id, group, 10_000, NOW)
        ]
        loaded = jobs.load(conn, ids)
    return [loaded[job_id] for job_id in ids]


def stop_after(rows: int) -> Callable[[str, int, int | None], None]:
    def progress(doing: str, count: int, _of: int | None) -> None:
        if doing == "storing" and count >= rows:
            raise Stop

    return progress


def test_every_row_is_a_pending_job_of_an_active_batch(
    database: Database, submit: Callable[..., Admission]
) -> None:
    admission = submit(ROWS, system="Be brief.", max_tokens=50)
    with database.read() as conn:
        batch = batches.find(conn, admission.batch_id)
        shared = batches.shared_of(conn, admission.batch_id)
    assert (batch.state, batch.total, admission.jobs) == (BatchState.ACTIVE, 450, 450)
    assert shared == {"model": "claude-sonnet-5", "max_tokens": 50, "system": "Be brief."}
    stored = jobs_of(database, batch.id)
    assert [job.prompt.body["messages"][0]["content"] for job in stored] == [row["prompt"] for row in ROWS]
    assert all(job.state is JobState.PENDING for job in stored)
    assert stored[7].prompt.body["system"] == "Be brief."
    assert stored[7].custom_id == f"00000008-{fingerprint_of(stored[7].prompt.body)[:12]}"


def test_the_batch_carries_what_was_said_about_it(
    database: Database, submit: Callable[..., Admission]
) -> None:
    deadline = NOW + timedelta(hours=24)
    admission = submit(
        ROWS[:3],
        name="squares",
        lane=Lane.BULK,
        deadline=deadline,
        budget_nanos=5,
        priority=10.0,
        tags={"team": "数学"},
        extra={"retries": 3},
    )
    with database.read() as conn:
        batch = batches.find(conn, "squares")
    assert batch.id == admission.batch_id
    assert (batch.lane, batch.deadline, batch.budget_nanos, batch.priority) == (Lane.BULK, deadline, 5, 10.0)
    assert (batch.tags, batch.options) == ({"team": "数学"}, {"retries": 3})
    assert (batch.model, batch.endpoint, batch.simulated) == ("claude-sonnet-5", "http://127.0.0.1:1", True)
    assert batch.estimate_nanos == admission.estimate.cost_nanos


def test_one_fault_on_the_last_row_and_nothing_is_submitted(
    database: Database, submit: Callable[..., Admission]
) -> None:
    with pytest.raises(InvalidInput):
        submit([*ROWS, {"prompt": ""}], name="squares")
    with database.read() as conn:
        assert batches.list_recent(conn) == []


def test_faulty_rows_are_left_out_when_asked(database: Database, submit: Callable[..., Admission]) -> None:
    rows = [ROWS[0], {"prompt": ""}, {**ROWS[1], "custom_id": "x"}, {**ROWS[2], "custom_id": "x"}, ROWS[3]]
    admission = submit(rows, skip_invalid=True)
    assert (admission.jobs, admission.skipped_count) == (3, 2)
    stored = jobs_of(database, admission.batch_id)
    assert [job.prompt.body["messages"][0]["content"] for job in stored] == [
        ROWS[n]["prompt"] for n in (0, 1, 3)
    ]


def test_a_submit_that_broke_off_is_repeated_and_only_the_rest_is_written(
    database: Database, submit: Callable[..., Admission]
) -> None:
    with pytest.raises(Stop):
        submit(ROWS, progress=stop_after(200))
    with database.read() as conn:
        [broken] = batches.list_recent(conn)
    assert (broken.state, broken.total) == (BatchState.ADMITTING, 200)
    admission = submit(iter(ROWS))
    assert (admission.batch_id, admission.resumed) == (broken.id, True)
    with database.read() as conn:
        whole = batches.find(conn, broken.id)
    assert (whole.state, whole.total) == (BatchState.ACTIVE, 450)
    assert [job.prompt.body["messages"][0]["content"] for job in jobs_of(database, whole.id)] == [
        row["prompt"] for row in ROWS
    ]


def test_a_batch_that_was_canceled_half_way_is_refused_and_a_new_one_is_made_beside_it(
    database: Database, submit: Callable[..., Admission]
) -> None:
    with pytest.raises(Stop):
        submit(ROWS, name="squares", progress=stop_after(200))
    with database.begin() as conn:
        cut = control.cancel(conn, batches.find(conn, "squares").id, NOW)
    assert (cut.state, cut.was_cut, cut.canceled) == (BatchState.ENDED, True, 200)
    with pytest.raises(
        InvalidInput, match="squares was canceled half-way, with 200 of 450 prompts: submit with --new"
    ):
        submit(ROWS, name="squares", budget_nanos=7)
    with database.begin() as conn:
        page = retrying.page_to_retry(conn, cut.id, [JobState.CANCELED])
        assert page is not None
        with pytest.raises(InvalidTransition, match="canceled half-way, with 200 prompts"):
            retrying.retry(conn, cut.id, page.ids, [JobState.CANCELED], NOW)
        assert batches.get(conn, cut.id) == cut
    assert submit(ROWS, name="squares", new=True).name == "squares-2"


def test_a_batch_that_is_canceled_while_it_is_submitted_takes_no_further_row(
    database: Database, submit: Callable[..., Admission]
) -> None:
    def cancel(doing: str, count: int, _of: int | None) -> None:
        if (doing, count) == ("storing", 200):
            with database.begin() as conn:
                control.cancel(conn, batches.find(conn, "squares").id, NOW)

    with pytest.raises(InvalidTransition, match="canceled, and takes no further jobs"):
        submit(ROWS, name="squares", progress=cancel)
    with pytest.raises(InvalidInput, match="canceled half-way, with 200 of 450"):
        submit(ROWS, name="squares")


def test_submitted_by_several_at_once_it_is_one_batch(
    database: Database, submit: Callable[..., Admission]
) -> None:
    read = Barrier(3, timeout=20)

    def progress(doing: str, _count: int, _of: int | None) -> None:
        if doing == "reading":
            read.wait()

    with ThreadPoolExecutor(3) as pool:
        sent = [pool.submit(submit, ROWS, progress=progress) for _ in range(3)]
    admissions = [each.result() for each in sent]
    assert len({each.batch_id for each in admissions}) == 1
    assert sorted(each.resumed for each in admissions) == [False, True, True]
    with database.read() as conn:
        whole = batches.find(conn, admissions[0].batch_id)
    assert (whole.state, whole.total) == (BatchState.ACTIVE, 450)


# On SQLite there is one writer at a time.
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_who_comes_second_between_a_look_and_a_write_goes_on_with_the_first(
    submit: Callable[..., Admission], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = batches.find_by_name
    firsts: list[str | None] = []

    def find_late(conn: Connection, name: str) -> BatchRow | None:
        found = find(conn, name)
        if not firsts:
            firsts.append(None)
            firsts[0] = submit(ROWS[:5], name="squares").batch_id
        return found

    monkeypatch.setattr(batches, "find_by_name", find_late)
    second = submit(ROWS[:5], name="squares")
    assert (second.batch_id, second.resumed) == (firsts[0], True)
    firsts.clear()
    with pytest.raises(InvalidInput, match="with other prompts"):
        submit(ROWS[:4], name="squares")


def test_a_submit_that_succeeded_is_found_again(database: Database, submit: Callable[..., Admission]) -> None:
    first = submit(ROWS[:5])
    again = submit(ROWS[:5], budget_nanos=7)
    assert (first.resumed, again.resumed) == (False, True)
    assert first.batch_id == again.batch_id
    with database.read() as conn:
        row = batches.find(conn, first.batch_id)
    assert (row.total, row.budget_nanos) == (5, 7)
    submit(ROWS[:5])  # says nothing of a budget
    with database.read() as conn:
        assert batches.find(conn, first.batch_id).budget_nanos == 7


def test_a_rehearsal_is_another_batch_than_the_real_thing(submit: Callable[..., Admission]) -> None:
    assert submit(ROWS[:2], simulated=True).batch_id != submit(ROWS[:2], simulated=False).batch_id


@pytest.mark.parametrize(
    ("rows", "options", "why"),
    [
        (ROWS[:4], {}, "with other prompts or options; take another --name, or --new"),
        (ROWS[:5], {"max_tokens": 7}, "with other prompts or options"),
        (ROWS[:5], {"lane": Lane.BULK}, "in the realtime lane"),
    ],
)
def test_a_name_stands_for_one_content(
    submit: Callable[..., Admission], rows: list[Any], options: dict[str, Any], why: str
) -> None:
    submit(ROWS[:5], name="squares")
    with pytest.raises(InvalidInput, match=why) as caught:
        submit(rows, name="squares", **options)
    assert caught.value.field == "name"


def test_new_makes_one_batch_more_each_time(submit: Callable[..., Admission]) -> None:
    names = [submit(ROWS[:2], name="squares", new=True).name for _ in range(3)]
    assert names == ["squares", "squares-2", "squares-3"]


def test_a_limit_takes_the_first_rows(database: Database, submit: Callable[..., Admission]) -> None:
    admission = submit(ROWS, limit=3)
    stored = jobs_of(database, admission.batch_id)
    assert [job.prompt.body["messages"][0]["content"] for job in stored] == [
        row["prompt"] for row in ROWS[:3]
    ]


def test_models_of_several_groups_go_into_one_batch(
    database: Database, submit: Callable[..., Admission]
) -> None:
    models = ["claude-opus-4-8", "claude-opus-4-5", "claude-haiku-5-5"]
    admission = submit([{"prompt": "hello", "model": model} for model in models])
    stored = jobs_of(database, admission.batch_id)
    assert {job.prompt.model: job.model_group for job in stored} == {
        "claude-opus-4-8": "claude-opus-4.x",
        "claude-opus-4-5": "claude-opus-4.x",
        "claude-haiku-5-5": "claude-haiku-5-5",
    }


@pytest.mark.parametrize("text", ["鸭子 🦆", "a\x00b", "\ud800 alone", "tab\tand\nbreak"])
def test_any_text_comes_out_as_it_went_in(
    database: Database, submit: Callable[..., Admission], text: str
) -> None:
    admission = submit([{"prompt": text}], system=f"About {text}")
    [job] = jobs_of(database, admission.batch_id)
    assert job.prompt.body["messages"][0]["content"] == text
    assert job.prompt.body["system"] == f"About {text}"


def test_a_chinese_file_name_names_the_batch(tmp_path: Path, submit: Callable[..., Admission]) -> None:
    path = tmp_path / "数学题.jsonl"
    path.write_text('{"prompt": "一加一等于几"}\n', encoding="utf-8")
    assert submit(path).name.startswith("数学题-")


def test_progress_tells_of_reading_and_of_storing(submit: Callable[..., Admission]) -> None:
    told: list[tuple[str, int, int | None]] = []
    submit(ROWS, progress=lambda *step: told.append(step))
    assert told[0] == ("reading", 450, 450)
    assert told[1] == ("storing", 200, 450)
    assert told[-1] == ("storing", 450, 450)


def test_progress_of_a_submit_taken_up_tells_what_was_there_from_what_is_stored_now(
    submit: Callable[..., Admission],
) -> None:
    with pytest.raises(Stop):
        submit(ROWS, progress=stop_after(200))
    told: list[tuple[str, int, int | None]] = []
    submit(ROWS, progress=lambda *step: told.append(step))
    assert told[1] == ("resuming", 200, 450)
    assert told[2][0] == told[-1][0] == "storing"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_sqlites_lock_is_free_for_as_long_as_it_was_held(database: Database) -> None:
    class Slow(ManualClock):
        def now(self) -> datetime:  # asked once in every transaction
            self.advance(0.04)
            return super().now()

    with database.begin() as conn:
        new = NewBatch(name="slow", model="m", shared={}, endpoint="none", simulated=True)
        batch = batches.create(conn, new, NOW)
    rows = (
        NewJob(
            seq=seq, custom_id=f"row-{seq}", model_group="m", body={}, fingerprint="f",
            estimated_input_tokens=1, estimated_output_tokens=1,
        )
        for seq in range(600)
    )  # fmt: skip
    slept: list[float] = []
    for _ in store(database, batch.id, rows, Slow(NOW), sleep=slept.append):
        pass
    assert slept == pytest.approx([0.0, 0.04, 0.04])


def test_a_fault_of_the_callers_own_generator_is_the_callers(
    database: Database, submit: Callable[..., Admission]
) -> None:
    def rows() -> Iterator[object]:
        yield {"prompt": "a"}
        raise Stop

    with pytest.raises(Stop):
        submit(rows(), name="squares")
    with database.read() as conn, pytest.raises(NotFound):
        batches.find(conn, "squares")
