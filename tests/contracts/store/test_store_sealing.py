"""Encryption at rest, on both databases: what is written cannot be read without a key, and everything works as before."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update

from promptmill import retention
from promptmill.clock import SystemClock
from promptmill.encryption import SEALED, Vault, id_of, new_key, read_vault
from promptmill.errors import ConfigurationError, InvalidInput
from promptmill.states import BatchState, JobState
from promptmill.store import batches, control, failures, jobs, loading, notices, resealing, results
from promptmill.store.database import Database
from promptmill.store.purging import Part
from promptmill.store.tables import METADATA, job, reply
from promptmill.store.unreadable import unreadable

SECRETS = {
    "system": "a system prompt of a kind", "prompt": "What is 1?", "source": "a row of a person", "print": "print of 1",
    "answer": "an answer of a kind", "parsed": "parsed of a kind", "error": "an error that quotes", "hash": "hash of content",
    "template": "print of a template", "url": "https://hooks.example.com/token",
}  # fmt: skip
KEY, OTHER = new_key(), new_key()


@pytest.fixture
def world_with(world_of: Any) -> Iterator[Callable[..., Any]]:
    """`world_with(url, *keys)`: a world whose database has these keys."""
    opened: list[Database] = []

    def make(url: str, *keys: str) -> Any:
        opened.append(Database.open(url, Vault(keys) if keys else None))
        return type(world_of(url))(opened[-1])

    yield make
    for database in opened:
        database.close()


@pytest.fixture
def sealed(world_with: Any, database_url: str) -> Any:
    return world_with(database_url, KEY)


def filled(world: Any, **changes: Any) -> Any:
    """A batch with one job answered and one failed."""
    shared = {"model": "m", "max_tokens": 9, "system": SECRETS["system"]}
    made = world.admitting(
        0,
        shared=shared,
        content_hash=SECRETS["hash"],
        template=SECRETS["template"],
        notify_url=SECRETS["url"],
        **changes,
    )
    with world.database.begin() as conn:
        rows = [world.new_job(seq, source={"text": SECRETS["source"]}) for seq in range(2)]
        jobs.insert_many(conn, made.id, rows, world.now)
        control.seal(conn, made.id, world.now)
    failed, answered = world.running(made)
    with world.database.begin() as conn:
        closed = world.closed(failed, "prompt_rejected", cost_nanos=0, error_message=SECRETS["error"])
        failure = jobs.Failure(
            job_id=failed.job_id, token=failed.token, error_kind="prompt_rejected", attempt=closed
        )
        jobs.fail(conn, [failure], world.now)
        answer = world.completion(answered, SECRETS["answer"], parsed={"a": SECRETS["parsed"]})
        jobs.complete(conn, [answer], world.now)
    return world.row(made)


def as_stored(world: Any) -> str:
    with world.database.read() as conn:
        tables = [conn.execute(text(f"SELECT * FROM {name}")).all() for name in METADATA.tables]
    return "".join(sorted(repr(row) for rows in tables for row in rows))


def test_nothing_of_prompts_and_answers_is_readable_in_the_database(sealed: Any) -> None:
    filled(sealed)
    stored = as_stored(sealed)
    assert {name for name, secret in SECRETS.items() if secret in stored} == set()
    assert SEALED in stored


def test_with_the_key_everything_is_as_it_was(sealed: Any) -> None:
    made = filled(sealed)
    sealed.assert_adds_up(made)
    with sealed.database.read() as conn:
        failed, answered = results.iterate(conn, made.id)
        (loaded,) = loading.load(conn, [answered.job_id]).values()
        (group,) = failures.groups(conn, made.id)
        assert batches.shared_of(conn, made.id)["system"] == SECRETS["system"]
        (owed,) = notices.due(conn, sealed.now)
        content_hash = batches.content_hash_of(conn, made.id)
    assert (answered.text, answered.parsed, answered.source) == (
        SECRETS["answer"], {"a": SECRETS["parsed"]}, {"text": SECRETS["source"]},
    )  # fmt: skip
    assert answered.message is not None
    assert answered.message["content"][0]["text"] == SECRETS["answer"]
    assert loaded.prompt.body["messages"][0]["content"] == "What is 1?"
    assert failed.error is not None
    assert failed.error.message == group.message == SECRETS["error"]
    assert (content_hash, owed.url) == (SECRETS["hash"], SECRETS["url"])


def test_a_submit_that_is_repeated_finds_its_jobs_by_their_sealed_fingerprints(sealed: Any) -> None:
    made = sealed.admitting(3)
    with sealed.database.begin() as conn:
        again = [sealed.new_job(seq) for seq in range(3)]
        assert jobs.insert_many(conn, made.id, again, sealed.now) == 0
        with pytest.raises(InvalidInput, match="with another prompt"):
            jobs.insert_many(conn, made.id, [sealed.new_job(1, fingerprint="other")], sealed.now)


def test_a_template_is_looked_up_by_a_hash_under_the_key(sealed: Any) -> None:
    filled(sealed)
    with sealed.database.read() as conn:
        (row,) = batches.list_recent(conn)
    assert row.template is not None
    assert row.template.startswith("keyed:")
    vault = Vault([KEY])
    assert vault.keyed(SECRETS["template"]) == row.template == vault.keyed(row.template)
    assert Vault([OTHER]).keyed(SECRETS["template"]) != row.template


def test_without_the_key_or_with_another_nothing_is_opened(
    world_with: Any, sealed: Any, database_url: str
) -> None:
    made = filled(sealed)
    for keys, why in (((), "and no key is given"), ((OTHER,), "with another key than those in its file")):
        other = world_with(database_url, *keys)
        with pytest.raises(ConfigurationError, match=why) as raised:
            other.database.check_keys()
        assert (f"(its id is {id_of(KEY)})" in str(raised.value)) is bool(keys)
        assert SEALED not in str(raised.value)
        with other.database.read() as conn, pytest.raises(ConfigurationError, match=why):
            list(results.iterate(conn, made.id))


def test_a_batch_whose_key_is_lost_holds_up_no_other(world_with: Any, sealed: Any, database_url: str) -> None:
    lost, running = filled(sealed), sealed.batch(2, notify_url=SECRETS["url"])
    newer = world_with(database_url, OTHER, KEY)
    newer.tick(5)
    after = filled(newer, name="after")
    new = newer.batch(1, name="new")
    world = world_with(database_url, OTHER)
    assert world.database.check_keys() is False
    with world.database.read() as conn:
        ids = conn.scalars(select(job.c.id).where(job.c.batch_id.in_([running.id, new.id]))).all()
        assert {each.batch_id for each in loading.load(conn, ids).values()} == {new.id}
    with world.database.begin() as conn:
        assert {each.id for each in batches.list_recent(conn)} == {lost.id, running.id, after.id, new.id}
        assert [each.id for each in batches.active(conn)] == [running.id, new.id]
        assert batches.find(conn, lost.name).is_told
        assert [(each.jobs, each.message) for each in failures.groups(conn, lost.id)] == [(1, None)]
        told = {each.batch.id: each.url for each in notices.due(conn, world.now)}
        assert told == {lost.id: None, after.id: SECRETS["url"]}
        assert control.cancel(conn, running.id, world.now).state is BatchState.ENDED
    for made, parts in ((lost, {Part.PROMPTS, Part.ANSWERS}), (running, {Part.EVERYTHING})):
        retention.purge(world.database, world.row(made), frozenset(parts), clock=SystemClock())
    with world.database.read() as conn:
        assert [row.text for row in results.iterate(conn, lost.id)] == [None, ""]
    assert world.database.check_keys()


def test_a_job_that_no_key_opens_is_found_with_the_id_of_the_missing_key(
    world_with: Any, sealed: Any, database_url: str
) -> None:
    lost = sealed.batch(2)
    newer = world_with(database_url, OTHER)
    readable = newer.batch(1, name="readable")
    ids = [each.job_id for made in (lost, readable) for each in newer.dispatch(made)]
    with newer.database.read() as conn:
        left_out = sorted(set(ids) - jobs.load(conn, ids).keys())
        found = unreadable(conn, [*left_out, "job_unknown"])
    assert sorted(found) == left_out
    assert {
        (each.batch_id, each.state, each.dispatch, each.key_id, each.is_damaged) for each in found.values()
    } == {(lost.id, JobState.QUEUED, 1, id_of(KEY), False)}
    assert newer.database.key_ids == (id_of(OTHER),)
    with sealed.database.read() as conn:
        assert unreadable(conn, left_out) == {}


@pytest.mark.parametrize(("column", "spoilt"), [("prompt.body", 1), ("batch.shared", 2)])
def test_a_text_that_its_own_key_does_not_open_is_damaged(sealed: Any, column: str, spoilt: int) -> None:
    ids = [each.job_id for each in sealed.dispatch(sealed.batch(2))]
    table, name = column.split(".")
    which = f"WHERE job_id = '{ids[0]}'" if table == "prompt" else ""
    with sealed.database.begin() as conn:
        conn.execute(text(f"UPDATE {table} SET {name} = substr({name}, 1, length({name}) - 8) {which}"))
    with sealed.database.read() as conn:
        found = unreadable(conn, set(ids) - jobs.load(conn, ids).keys())
    assert [(each.key_id, each.is_damaged) for each in found.values()] == [(id_of(KEY), True)] * spoilt


def test_all_of_a_batch_can_be_removed_without_its_key(
    world_with: Any, sealed: Any, database_url: str
) -> None:
    made = filled(sealed)
    world = world_with(database_url)
    retention.purge(world.database, world.row(made), frozenset({Part.EVERYTHING}), clock=SystemClock())
    assert as_stored(world).count(SEALED) == 0
    assert world.database.check_keys()


def test_who_has_no_key_is_refused_even_if_somebody_wrote_without_one(
    world_with: Any, sealed: Any, database_url: str
) -> None:
    filled(sealed)
    plain = world_with(database_url)
    plain.tick(5)
    filled(plain, name="written in the clear")
    with pytest.raises(ConfigurationError, match="no key is given"):
        plain.database.check_keys()


def test_keys_are_replaced_while_older_rows_stay_readable(
    world_with: Any, sealed: Any, database_url: str
) -> None:
    made = filled(sealed)
    newer = world_with(database_url, OTHER, KEY)
    newer.database.check_keys()
    newer.tick(5)
    second = filled(newer, name="second")
    with newer.database.read() as conn:
        texts = [
            row.text
            for each in (made, second)
            for row in results.iterate(conn, each.id, [JobState.SUCCEEDED])
        ]
    assert texts == [SECRETS["answer"]] * 2
    with pytest.raises(ConfigurationError):
        sealed.database.check_keys()


def test_rows_from_before_are_read_and_what_looks_sealed_is_taken_at_its_word(
    world_with: Any, database_url: str
) -> None:
    plain = world_with(database_url)
    made = plain.batch(1)
    odd = f"{SEALED}1:not at all"
    (lease,) = plain.running(made)
    with plain.database.begin() as conn:
        jobs.complete(conn, [plain.completion(lease, odd)], plain.now)
    for keys in ((), (KEY,)):
        world = world_with(database_url, *keys)
        with world.database.read() as conn:
            (row,) = results.iterate(conn, made.id)
        assert (row.text, row.source) == (odd, {"line": 0})


def test_text_of_every_kind_survives(sealed: Any) -> None:
    made = sealed.batch(1)
    (lease,) = sealed.running(made)
    with sealed.database.begin() as conn:
        jobs.complete(
            conn,
            [sealed.completion(lease, "\u4f60\u597d \U0001f600 \x00 \ud800", parsed={"x": "\x00\ud800"})],
            sealed.now,
        )
    with sealed.database.read() as conn:
        (row,) = results.iterate(conn, made.id)
    assert row.text == "\u4f60\u597d \U0001f600 \ufffd \ufffd"
    assert row.parsed == {"x": "\x00\ud800"}


def test_two_databases_of_one_process_keep_their_keys_apart(
    world_with: Any, sqlite_url: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    copy.write_bytes(Path(sqlite_url.removeprefix("sqlite:///")).read_bytes())
    one, other = world_with(sqlite_url, KEY), world_with(f"sqlite:///{copy}")
    filled(one)
    filled(other)
    filled(one)
    assert SECRETS["answer"] not in as_stored(one)
    assert SECRETS["answer"] in as_stored(other)


def rewrite(world: Any, *, plain: bool = False) -> int:
    changed = 0
    for target in resealing.targets():
        after: str | None = ""
        while after is not None:
            with world.database.begin() as conn:
                page = resealing.page(conn, target, after, 2, plain=plain)
            after, changed = page.after, changed + page.changed
            assert not page.closed
    return changed


def test_what_was_stored_before_comes_under_the_key_and_is_readable_again_on_demand(
    world_with: Any, database_url: str
) -> None:
    plain = world_with(database_url)
    made = filled(plain)
    before = as_stored(plain)
    world = world_with(database_url, KEY)
    assert rewrite(world) == 5  # the batch, two prompts, a reply, an attempt
    assert rewrite(world) == 0
    assert {name for name, secret in SECRETS.items() if secret in as_stored(world)} == set()
    world.assert_adds_up(made)
    assert rewrite(world, plain=True) == 5
    keyed = Vault([KEY]).keyed(SECRETS["template"])
    assert as_stored(world).replace(keyed, SECRETS["template"]) == before


def test_after_a_replaced_key_the_old_one_is_needed_no_more(
    world_with: Any, sealed: Any, database_url: str
) -> None:
    made = filled(sealed)
    assert rewrite(world_with(database_url, OTHER, KEY)) == 5
    newest = world_with(database_url, OTHER)
    newest.database.check_keys()
    with newest.database.read() as conn:
        assert [row.text for row in results.iterate(conn, made.id)] == [None, SECRETS["answer"]]


def test_what_is_written_while_its_page_is_rewritten_is_not_undone(
    world_with: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Postgres, where others write meanwhile; the next run finds it."""
    plain, world = world_with(postgres_url), world_with(postgres_url, KEY)
    filled(plain)
    rewritten = resealing._rewritten

    def write_meanwhile(conn: Any, target: resealing.Target, was: Any, **how: bool) -> Any:
        if target.name == reply.name:
            with plain.database.begin() as other:
                other.execute(update(reply).values(text="a newer answer"))
        return rewritten(conn, target, was, **how)

    with monkeypatch.context() as patched:
        patched.setattr(resealing, "_rewritten", write_meanwhile)
        rewrite(world)
    with world.database.read() as conn:
        assert conn.scalar(select(reply.c.text)) == "a newer answer"
    assert rewrite(world) == 1


def test_rows_that_no_key_opens_are_left_and_named_and_all_others_rewritten(
    world_with: Any, sealed: Any, database_url: str
) -> None:
    lost = filled(sealed, name="lost")
    plain = world_with(database_url)
    readable = filled(plain, name="readable")
    world = world_with(database_url, OTHER)
    changed, closed = 0, Counter[str]()
    for target in resealing.targets():
        after: str | None = ""
        while after is not None:
            with world.database.begin() as conn:
                page = resealing.page(conn, target, after, 3, plain=False)
            after, changed = page.after, changed + page.changed
            closed.update(page.closed)
    assert changed == 5
    assert closed == {lost.name: 5}
    with world.database.read() as conn:
        assert [row.text for row in results.iterate(conn, readable.id)] == [None, SECRETS["answer"]]
    with sealed.database.read() as conn:
        assert [row.text for row in results.iterate(conn, lost.id)] == [None, SECRETS["answer"]]


def test_every_column_that_holds_text_of_persons_is_sealed() -> None:
    assert {(each.name, *each.columns) for each in resealing.targets()} == {
        ("batch", "content_hash", "shared", "notify_url", "notify_fault", "template"),
        ("prompt", "fingerprint", "body", "source"),
        ("reply", "text", "parsed", "message"),
        ("attempt", "error_message"),
        ("schedule", "what"),
    }


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "cannot be read"), ("", "holds no key"), ("# only words\n\n", "holds no key"), (f"# mine\n{KEY}\n\nno CANARY", "keys, line 4: no key; make one")],
    ids=["not there", "empty", "only words", "no key"],
)  # fmt: skip
def test_a_file_without_usable_keys_is_refused_without_being_quoted(
    tmp_path: Path, content: str | None, why: str
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationError, match=why) as raised:
        read_vault(file)
    assert KEY not in str(raised.value)
    assert "CANARY" not in str(raised.value)
