"""Notices, on both databases: told at least once of each event, by one leader, with patience, and of figures alone."""

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from producers import documents
from promptmill.states import BatchState, JobState, PausedBy
from promptmill.store import control, notices, retrying
from promptmill.store.database import database_now
from promptmill.store.tables import batch
from promptmill.webhooks import Delivery, Message, Secrets
from workers.notices import Herald, message_about

URL = "https://hooks.example.com/a-secret-path"


class Post:
    """Takes messages as a receiver would, and answers what it is told to."""

    def __init__(self) -> None:
        self.taken: list[Message] = []
        self.answer = Delivery(status=200)

    def __call__(self, message: Message, **_: Any) -> Delivery:
        self.taken.append(message)
        return self.answer

    @property
    def told(self) -> list[str]:
        return [json.loads(each.body)["type"] for each in self.taken]


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def tell(world: Any, post: Post) -> Any:
    return Herald(world.database, Secrets(), deliver=post).tell


def finished(world: Any, **changes: Any) -> Any:
    made = world.batch(2, **{"notify_url": URL, **changes})
    world.complete(*world.running(made))
    return world.row(made)


def sooner(world: Any, made: Any) -> None:
    """The wait after a failure is over."""
    with world.database.begin() as conn:
        past = database_now(conn) - timedelta(seconds=1)
        conn.execute(update(batch).where(batch.c.id == made.id).values(notify_after=past))


def hold(world: Any, made: Any, by: PausedBy = PausedBy.BUDGET) -> None:
    with world.database.begin() as conn:
        control.pause(conn, made.id, "the budget is used up", world.now, by=by)


def test_the_end_is_told_once_with_figures_and_no_prompt(world: Any, tell: Any, post: Post) -> None:
    made = finished(world)
    assert (tell(), tell()) == (1, 0)
    (message,) = post.taken
    told = json.loads(message.body)
    assert message.url == URL
    assert told["data"]["jobs"] == {"total": 2, "succeeded": 2, "errored": 0, "canceled": 0, "expired": 0}
    assert (told["data"]["batch_id"], told["data"]["state"]) == (made.id, "ended")
    assert "What is" not in message.body.decode()
    assert world.row(made).notified_at is not None


def test_what_runs_and_what_nobody_asked_for_is_not_told(world: Any, tell: Any) -> None:
    finished(world, notify_url=None)
    world.batch(2, notify_url=URL)
    assert tell() == 0


def test_a_pause_is_told_unless_a_person_made_it_and_the_end_after_it_too(
    world: Any, tell: Any, post: Post
) -> None:
    by_person, made = (world.batch(1, notify_url=URL) for _ in range(2))
    hold(world, by_person, PausedBy.PERSON)
    hold(world, made)
    assert (tell(), tell()) == (1, 0)
    with world.database.begin() as conn:
        control.cancel(conn, made.id, world.now)
    assert tell() == 1
    assert post.told == ["batch.paused", "batch.ended"]


def test_a_second_pause_is_told_anew(world: Any, tell: Any, post: Post) -> None:
    made = world.batch(1, notify_url=URL)
    for _ in range(2):
        hold(world, made)
        assert tell() == 1
        with world.database.begin() as conn:
            control.resume(conn, made.id, world.tick(1))
    assert post.told == ["batch.paused"] * 2
    assert len({each.id for each in post.taken}) == 2


def test_the_end_in_the_midst_of_a_pause_is_told(world: Any, tell: Any, post: Post) -> None:
    made = world.batch(1, notify_url=URL)
    running = world.running(made)
    hold(world, made)
    assert tell() == 1
    world.complete(*running)
    assert tell() == 1
    assert post.told == ["batch.paused", "batch.ended"]


def test_a_batch_that_was_retried_is_told_of_again(world: Any, tell: Any, post: Post) -> None:
    made = world.batch(1, notify_url=URL)
    running = world.running(made)
    world.fail(*running)
    assert tell() == 1
    with world.database.begin() as conn:
        assert retrying.retry(conn, made.id, [each.job_id for each in running], [JobState.ERRORED], world.now)
    assert tell() == 0
    world.tick(5)
    world.complete(*world.running(made))
    assert tell() == 1
    assert len({each.id for each in post.taken}) == 2


def test_a_failure_is_tried_again_later_under_the_same_id(world: Any, tell: Any, post: Post) -> None:
    made = finished(world)
    post.answer = Delivery(status=500)
    assert (tell(), tell(), len(post.taken)) == (0, 0, 1)
    waits = []
    for _ in range(9):
        row = world.row(made)
        with world.database.read() as conn:
            waits.append(round((row.notify_after - database_now(conn)).total_seconds(), -1))
        sooner(world, made)
        tell()
    assert waits == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    post.answer = Delivery(status=204)
    sooner(world, made)
    assert tell() == 1
    assert len({each.id for each in post.taken}) == 1
    assert world.row(made).notify_tries == 0


def why(world: Any, made: Any) -> str | None:
    with world.database.read() as conn:
        return notices.last_fault(conn, made.id)


def test_the_last_failure_is_kept_until_the_notice_arrives_or_another_is_owed(
    world: Any, tell: Any, post: Post
) -> None:
    made = world.batch(1, notify_url=URL)
    running = world.running(made)
    hold(world, made)
    for answer, kept in ((Delivery(status=500), "answered 500"), (Delivery(fault="x" * 900), "x" * 200)):
        post.answer = answer
        tell()
        sooner(world, made)
        assert why(world, made) == kept
    world.complete(*running)
    assert why(world, made) is None
    post.answer = Delivery(fault="no answer within 10 s")
    tell()
    sooner(world, made)
    assert why(world, made) == "no answer within 10 s"
    post.answer = Delivery(status=200)
    assert tell() == 1
    assert why(world, made) is None


def test_after_a_day_of_failures_it_is_given_up(world: Any, tell: Any, post: Post) -> None:
    made = finished(world)
    post.answer = Delivery(fault="TimeoutError")
    for _ in range(notices.MOST_TRIES + 5):
        tell()
        sooner(world, made)
    assert len(post.taken) == notices.MOST_TRIES
    said = documents._notify(world.row(made), "host", why(world, made))
    assert said["last_fault"] == "TimeoutError"
    assert (said["told_at"], said["given_up_at"] is None, said["failed_tries"]) == (
        None,
        False,
        notices.MOST_TRIES,
    )


def test_two_leaders_send_one_notice(world: Any, post: Post) -> None:
    finished(world)
    with world.database.read() as conn:
        owed = notices.due(conn, database_now(conn))
    with world.database.begin() as conn:
        assert [notices.claim(conn, each, world.now) for each in (*owed, *owed)] == [True, False]


def test_what_changes_while_it_is_sent_is_owed_at_once(world: Any, post: Post) -> None:
    made = world.batch(1, notify_url=URL)
    running = world.running(made)
    hold(world, made)

    def ends_meanwhile(message: Message, **others: Any) -> Delivery:
        if not post.taken:
            world.complete(*running)
        return post(message, **others)

    herald = Herald(world.database, Secrets(), deliver=ends_meanwhile)
    assert (herald.tell(), herald.tell(), herald.tell()) == (1, 1, 0)
    assert post.told == ["batch.paused", "batch.ended"]


def test_who_told_of_a_pause_does_not_settle_the_end_that_another_leader_tells_meanwhile(world: Any) -> None:
    made = world.batch(1, notify_url=URL)
    running = world.running(made)
    hold(world, made)
    told = []
    for _ in range(2):
        with world.database.begin() as conn:
            [notice] = notices.due(conn, database_now(conn))
            assert notices.claim(conn, notice, database_now(conn))
        told.append(notice)
        world.complete(*running)
    with world.database.begin() as conn:
        notices.settle(conn, told[0], world.now, is_told=True)
    assert world.row(made).notified_at is None


def test_an_end_does_not_wait_for_the_patience_with_the_pause_before_it(
    world: Any, tell: Any, post: Post
) -> None:
    made = world.batch(1, notify_url=URL)
    running = world.running(made)
    hold(world, made)
    post.answer = Delivery(status=500)
    assert tell() == 0
    post.answer = Delivery(status=200)
    world.complete(*running)
    assert (world.row(made).notify_tries, world.row(made).notify_after) == (0, None)
    assert tell() == 1
    assert post.told == ["batch.paused", "batch.ended"]


def test_what_is_owed_for_the_first_time_goes_before_what_was_tried(world: Any) -> None:
    tried, later, fresh = (finished(world) for _ in range(3))
    sooner(world, later)
    sooner(world, tried)
    with world.database.begin() as conn:
        past = database_now(conn) - timedelta(hours=1)
        conn.execute(update(batch).where(batch.c.id == tried.id).values(notify_after=past))
    with world.database.read() as conn:
        owed = notices.due(conn, database_now(conn))
    assert [each.batch.id for each in owed] == [fresh.id, tried.id, later.id]


def test_a_receiver_that_does_not_answer_holds_up_no_other_notice(world: Any) -> None:
    for number in range(6):
        finished(world, notify_url=f"{URL}/{number}")
    all_wait = threading.Barrier(6, timeout=60)

    def waits_for_the_others(_message: Message, **_: Any) -> Delivery:
        all_wait.wait()
        return Delivery(status=200)

    assert Herald(world.database, Secrets(), deliver=waits_for_the_others).tell() == 6


def test_a_delivery_that_breaks_is_a_failure_of_that_notice_alone(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broken, fine = finished(world, notify_url=f"{URL}/broken"), finished(world)

    def breaks(message: Message, **_: Any) -> Delivery:
        if message.url.endswith("broken"):
            raise RuntimeError(message.url)
        return Delivery(status=200)

    assert Herald(world.database, Secrets(), deliver=breaks).tell() == 1
    assert (world.row(broken).notify_tries, world.row(fine).notified_at is None) == (1, False)
    assert "a-secret-path" not in caplog.text


def test_another_address_is_told_of_a_batch_that_has_ended(world: Any, tell: Any, post: Post) -> None:
    made = finished(world, notify_url=None)
    with world.database.begin() as conn:
        notices.send_to(conn, made.id, URL)
        notices.send_to(conn, made.id, URL)
    assert (tell(), len(post.taken)) == (1, 1)


def test_a_leader_that_died_while_sending_is_followed(world: Any, tell: Any) -> None:
    made = finished(world)
    with world.database.begin() as conn:
        (owed,) = notices.due(conn, database_now(conn))
        notices.claim(conn, owed, database_now(conn))
    assert tell() == 0
    sooner(world, made)
    assert tell() == 1


def test_the_address_is_in_no_repr(world: Any) -> None:
    made = finished(world)
    assert "a-secret-path" not in repr(made)
    assert "a-secret-path" not in repr(message_about(made, URL, world.now))
    with world.database.read() as conn:
        (owed,) = notices.due(conn, database_now(conn))
    assert owed.url == URL
    assert "a-secret-path" not in repr(owed)
    assert made.state is BatchState.ENDED
