"""The metrics of an installation, as a scrape sees them, of either database and a real Redis."""

import json
import shutil
import socket
import subprocess
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from producers.metrics import MetricsReader, exposition
from promptmill import settings
from promptmill.metrics import METRICS
from promptmill.routes import KEY_STATES, MESSAGES_REFUSED, VITALS
from promptmill.settings import Settings
from promptmill.store import control, workers
from promptmill.store.database import Database, database_now
from promptmill.testing import a_batch

Series = dict[tuple[str, ...], float]


@pytest.fixture
def config(database_url: str, clean_redis: str, tmp_path: Path) -> Settings:
    return settings.load(
        environ={"PROMPTMILL_DATABASE_URL": database_url, "PROMPTMILL_REDIS_URL": clean_redis},
        folder=tmp_path,
    )


def series_of(text: bytes) -> Series:
    families = text_string_to_metric_families(text.decode())
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_a_scrape_shows_jobs_batches_and_what_cannot_go_back(config: Settings, database: Database) -> None:
    a_batch(database, 3, name="two\nlines", budget_nanos=2_500_000_000)

    found = series_of(exposition(config))

    assert found["promptmill_jobs", "pending"] == 3
    assert found["promptmill_batches", "active"] == 1
    assert found["promptmill_batch_jobs", "two\nlines", "pending"] == 3
    assert found["promptmill_batch_budget_dollars", "two\nlines"] == 2.5
    assert found["promptmill_attempts_total", "claude-sonnet-5", "true"] == 0
    assert found["promptmill_cost_dollars_total", "claude-sonnet-5", "true"] == 0
    assert found["promptmill_jobs_ended_total", "succeeded"] == 0
    assert found["promptmill_queue_messages",] == 0
    assert found["promptmill_database_reachable",] == found["promptmill_limiter_reachable",] == 1


def test_a_paused_batch_says_by_whom(config: Settings, database: Database) -> None:
    paused = a_batch(database, 1, name="nightly")
    with database.begin() as connection:
        control.pause(connection, paused.id, "paused by a person", database_now(connection))

    assert series_of(exposition(config))["promptmill_batch_paused", "nightly", "person"] == 1


def test_counters_stay_when_the_batches_that_they_counted_are_gone(
    config: Settings, database: Database
) -> None:
    gone = a_batch(database, 2)
    with database.begin() as connection:
        control.cancel(connection, gone.id, database_now(connection))
    before = series_of(exposition(config))
    with database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM batch")

    after = series_of(exposition(config))

    assert before["promptmill_jobs_ended_total", "canceled"] == 2
    assert after["promptmill_jobs_ended_total", "canceled"] == 2
    assert after["promptmill_jobs", "canceled"] == 0


def test_what_workers_tell_in_redis_is_shown_while_they_live(config: Settings, database: Database) -> None:
    new = workers.NewWorker(id="worker_1", host="here", pid=7, version="0", endpoint=None, slots=10)
    with database.begin() as connection:
        workers.register(connection, new, database_now(connection))
    key: dict[str, Any] = {
        "account": "research",
        "label": "main",
        "kind": "file",
        "standing": "refused",
        "expires_at": "2026-12-01T00:00:00+00:00",
        "why": "refused with a 401",
        "until": None,
        "refused_for": {},
        "calls": 0,
    }
    token = {**key, "label": "token", "kind": "command", "standing": "usable"}
    with Redis.from_url(config.redis_url or "") as redis:
        redis.set(VITALS + "worker_1", json.dumps({"loop_lag_s": 0.25, "memory_bytes": 1024}))
        redis.hset(KEY_STATES, "worker_1", json.dumps({"at": 0, "keys": [key, token]}))
        redis.hset(
            KEY_STATES, "worker_2", json.dumps({"at": 0, "keys": [{**key, "label": "of one that ended"}]})
        )
        redis.hincrby(MESSAGES_REFUSED, "another_task", 3)

    found = series_of(exposition(config))

    assert found["promptmill_worker_slots", "here/7"] == 10
    assert found["promptmill_worker_loop_lag_seconds", "here/7"] == 0.25
    assert found["promptmill_keys", "research", "refused"] == 1
    assert found["promptmill_keys", "research", "usable"] == 1
    assert ("promptmill_key_expires_timestamp_seconds", "research", "token") not in found
    assert found["promptmill_key_expires_timestamp_seconds", "research", "main"] == 1796083200
    assert found["promptmill_messages_refused_total", "another_task"] == 3


def test_a_worker_that_was_started_anew_with_its_number_is_shown_once(
    config: Settings, database: Database
) -> None:
    with database.begin() as connection:
        now = database_now(connection)
        for seconds, slots in ((2, 20), (1, 10)):  # the newer first
            new = workers.NewWorker(
                id=f"worker_{slots}", host="here", pid=7, version="0", endpoint=None, slots=slots
            )
            workers.register(connection, new, now - timedelta(seconds=3 - seconds))

    text = exposition(config)

    assert text.count(b"promptmill_worker_slots{") == 1
    assert series_of(text)["promptmill_worker_slots", "here/7"] == 20


def test_a_redis_that_takes_connections_and_says_nothing_holds_a_scrape_up_for_a_little(
    config: Settings, database: Database
) -> None:
    a_batch(database, 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = config.model_copy(
            update={"redis_url": f"redis://127.0.0.1:{silent.getsockname()[1]}/0", "broker_url": None}
        )
        # A busy machine may take its time once; what waits too long by itself does so every time.
        for _ in range(5):
            began = time.monotonic()
            found = series_of(exposition(config))
            if (took := time.monotonic() - began) < 4:
                break

    assert took < 4
    assert found["promptmill_limiter_reachable",] == 0
    assert found["promptmill_jobs", "pending"] == 2


def test_labels_are_those_that_were_promised(config: Settings, database: Database) -> None:
    a_batch(database, 1, budget_nanos=1)
    promised = {each.name: set(each.labels) for each in METRICS}

    for family in text_string_to_metric_families(exposition(config).decode()):
        for sample in family.samples:
            assert set(sample.labels) == promised[sample.name]


def test_who_asks_again_within_a_second_is_told_the_same(config: Settings, database: Database) -> None:
    now = [0.0]
    with MetricsReader(config, monotonic=lambda: now[0]) as reader:
        first = reader.exposition()
        a_batch(database, 1)

        assert reader.exposition() is first
        now[0] += 1
        assert series_of(reader.exposition())["promptmill_jobs", "pending"] == 1


def test_a_database_that_is_away_is_said_and_nothing_is_raised(clean_redis: str, tmp_path: Path) -> None:
    away = settings.load(
        environ={"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none", "REDIS_URL": clean_redis},
        folder=tmp_path,
    )

    found = series_of(exposition(away))

    assert found["promptmill_database_reachable",] == 0
    assert found["promptmill_limiter_reachable",] == 1
    assert not any(name[0] == "promptmill_jobs" for name in found)


def test_promtool_finds_nothing_to_mend(config: Settings, database: Database) -> None:
    promtool: Any = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on this machine")
    a_batch(database, 1, budget_nanos=1)

    done = subprocess.run(
        [promtool, "check", "metrics"], input=exposition(config), capture_output=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
