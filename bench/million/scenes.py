"""A database with batches of a million jobs, made inside the database and not admitted one by one.

The idea: the rows are those that a run would have left (counters, attempts and replies agree), so what is measured on
them is measured on a batch. `waiting` has not begun, `running` is half done, `ended` is done, `failed` ended badly.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from promptmill.store import batches, control
from promptmill.store.batches import NewBatch
from promptmill.store.database import Database, database_now
from promptmill.store.recounting import recount

MODEL = "claude-sonnet-5"
GROUP = "claude-sonnet"
ENDPOINT = "http://127.0.0.1:9"
BEGUN_AGO = timedelta(hours=1)
PRICE_NANOS = 1_000_000


@dataclass(frozen=True, slots=True)
class Scene:
    """What has become of the jobs of a batch, in shares of them.

    Attributes:
        answered: succeeded.
        errored: given up, of one of three errors.
        refused: of the answered, those that are refusals.
        retried: of the answered, those that were refused with a 429 before.
        running, queued: how many, in figures.
    """

    answered: float = 0.0
    errored: float = 0.0
    refused: float = 0.0
    retried: float = 0.0
    running: int = 0
    queued: int = 0


SCENES = {
    "waiting": Scene(),
    "running": Scene(answered=0.5, retried=0.2, refused=0.01, running=1_000, queued=2_000),
    "ended": Scene(answered=1.0, refused=0.1, retried=0.1),
    "failed": Scene(answered=0.9, errored=0.1, retried=0.1, refused=0.01),
    "all_failed": Scene(errored=1.0),
}


def fill(database: Database, name: str, scene: Scene, jobs: int, *, model_group: str = GROUP) -> str:
    """Make a batch as the scene has it; its id."""
    now = datetime.now(UTC)
    new = NewBatch(
        name=name,
        model=MODEL,
        shared={"model": MODEL, "max_tokens": 1024},
        endpoint=ENDPOINT,
        simulated=True,
        template="bench",
    )
    with database.begin() as connection:
        batches.create(connection, new, database_now(connection) - BEGUN_AGO)
        _insert(connection, new.id, scene, jobs, now=now, group=model_group)
    with database.begin() as connection:
        _count(connection, new.id)
        recount(connection, new.id)
        control.seal(connection, new.id, now)
    _settle_down(database)
    return new.id


def _insert(
    connection: Connection, batch_id: str, scene: Scene, jobs: int, *, now: datetime, group: str
) -> None:
    """Rows by one INSERT … SELECT a table; `n` counts them from 0."""
    bounds = {
        "jobs": jobs,
        "answered": round(scene.answered * jobs),
        "errored": round((scene.answered + scene.errored) * jobs),
        "running": round((scene.answered + scene.errored) * jobs) + scene.running,
        "queued": round((scene.answered + scene.errored) * jobs) + scene.running + scene.queued,
    }
    shares = {"refused": _every(scene.refused), "retried": _every(scene.retried)}
    time = "timestamptz " if connection.dialect.name == "postgresql" else ""
    words = {
        "series": _SERIES[connection.dialect.name],
        "no": "FALSE" if connection.dialect.name == "postgresql" else "0",
        "yes": "TRUE" if connection.dialect.name == "postgresql" else "1",
        "batch": f"'{batch_id}'",
        "short": batch_id[-12:],
        "group": f"'{group}'",
        "model": f"'{MODEL}'",
        "now": f"{time}'{_stamp(now)}'",
        "opened": f"{time}'{_stamp(now - BEGUN_AGO / 2)}'",
        **{key: str(value) for key, value in (bounds | shares).items()},
    }
    for statement in (_JOBS, _PROMPTS, _ATTEMPTS, _TRIED_BEFORE, _REPLIES):
        connection.execute(text(_put(statement, words)))


def _every(share: float) -> int:
    """Every how manieth; one that never comes for a share of nothing."""
    return round(1 / share) if share else 1_000_000_000


def _put(statement: str, words: dict[str, str]) -> str:
    for key, value in words.items():
        statement = statement.replace(f"<{key}>", value)
    return statement


def _stamp(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


_SERIES = {
    "sqlite": "(WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n + 1 < <jobs>) SELECT n FROM s) AS s",
    "postgresql": "(SELECT generate_series(0, <jobs> - 1) AS n) AS s",
}
_ID = "'job_<short>' || CAST(1000000000 + n AS text)"
_ATTEMPT_ID = "'att_<short>' || CAST(1000000000 + n AS text)"
_STATE = """CASE WHEN n < <answered> THEN 'succeeded' WHEN n < <errored> THEN 'errored'
    WHEN n < <running> THEN 'running' WHEN n < <queued> THEN 'queued' ELSE 'pending' END"""
_WAS_RETRIED = "n < <errored> AND n % <retried> = 0"
_TRIES = f"CASE WHEN n >= <running> THEN 0 WHEN {_WAS_RETRIED} THEN 2 ELSE 1 END"
_JOBS = f"""
    INSERT INTO job (id, batch_id, seq, custom_id, state, model_group, estimated_input_tokens, estimated_output_tokens,
        dispatch, token, worker_id, attempts, not_before, queued_at, error_kind, error_status, error_type, changed_at)
    SELECT {_ID}, <batch>, n, 'row-' || CAST(n AS text), {_STATE}, <group>, 100, 400,
        CASE WHEN n < <queued> THEN 1 ELSE 0 END, {_TRIES}, CASE WHEN n >= <errored> AND n < <running> THEN 'w' END,
        {_TRIES}, NULL, CASE WHEN n >= <running> AND n < <queued> THEN <now> END,
        CASE WHEN n >= <answered> AND n < <errored> THEN
            CASE n % 3 WHEN 0 THEN 'server_failed' ELSE 'prompt_rejected' END END,
        CASE WHEN n >= <answered> AND n < <errored> THEN CASE n % 3 WHEN 0 THEN 500 WHEN 1 THEN 400 ELSE 413 END END,
        CASE WHEN n >= <answered> AND n < <errored> THEN
            CASE n % 3 WHEN 0 THEN 'api_error' WHEN 1 THEN 'invalid_request_error' ELSE 'request_too_large' END END,
        <now>
    FROM <series>
"""
_PROMPTS = f"""
    INSERT INTO prompt (job_id, fingerprint, body, source)
    SELECT {_ID}, 'sha256:' || CAST(1000000000 + n AS text),
        '{{"messages":[{{"role":"user","content":"What is ' || CAST(n AS text) || ' and twice as much?"}}]}}', NULL
    FROM <series>
"""
_COLUMNS = """(id, job_id, batch_id, number, token, worker_id, key_label, account, model, model_group, lane, opened_at,
    closed_at, outcome, status, error_type, error_code, error_message, request_id, stop_reason, input_tokens,
    output_tokens, cache_write_5m_tokens, cache_write_1h_tokens, cache_read_tokens, web_searches, usage_raw,
    cost_nanos, reserved_nanos, price_version, simulated)"""
_ATTEMPTS = f"""
    INSERT INTO attempt {_COLUMNS}
    SELECT {_ATTEMPT_ID}, {_ID}, <batch>, {_TRIES}, {_TRIES}, 'w', 'key', 'simulated/default', <model>, <group>,
        'realtime', <opened>, CASE WHEN n < <errored> THEN <now> END,
        CASE WHEN n < <answered> THEN 'succeeded' WHEN n >= <errored> THEN 'open'
            WHEN n % 3 = 0 THEN 'server_failed' ELSE 'prompt_rejected' END,
        CASE WHEN n >= <errored> THEN NULL WHEN n < <answered> THEN 200
            WHEN n % 3 = 0 THEN 500 WHEN n % 3 = 1 THEN 400 ELSE 413 END,
        CASE WHEN n >= <answered> AND n < <errored> THEN
            CASE n % 3 WHEN 0 THEN 'api_error' WHEN 1 THEN 'invalid_request_error' ELSE 'request_too_large' END END,
        NULL, CASE WHEN n >= <answered> AND n < <errored> THEN 'it did not work' END, 'req_' || CAST(n AS text),
        CASE WHEN n < <answered> THEN CASE WHEN n % <refused> = 1 THEN 'refusal' ELSE 'end_turn' END END,
        CASE WHEN n < <answered> THEN 90 ELSE 0 END, CASE WHEN n < <answered> THEN 300 ELSE 0 END, 0, 0, 0, 0, NULL,
        CASE WHEN n >= <errored> THEN NULL WHEN n < <answered> THEN {PRICE_NANOS} ELSE 0 END, 2000000, 'bench', <yes>
    FROM <series> WHERE n < <running>
"""
_TRIED_BEFORE = f"""
    INSERT INTO attempt {_COLUMNS}
    SELECT {_ATTEMPT_ID} || 'a', {_ID}, <batch>, 1, 1, 'w', 'key', 'simulated/default', <model>, <group>, 'realtime',
        <opened>, <now>, 'rate_limited', 429, 'rate_limit_error', NULL, 'later', 'req_a' || CAST(n AS text), NULL,
        0, 0, 0, 0, 0, 0, NULL, 0, 2000000, 'bench', <yes>
    FROM <series> WHERE {_WAS_RETRIED}
"""
_REPLIES = f"""
    INSERT INTO reply (job_id, attempt_id, stop_reason, model, simulated, created_at, text, parsed, message)
    SELECT {_ID}, {_ATTEMPT_ID}, CASE WHEN n % <refused> = 1 THEN 'refusal' ELSE 'end_turn' END, <model>, <yes>, <now>,
        'It is ' || CAST(n AS text) || ', and twice as much is ' || CAST(2 * n AS text) || '.', NULL,
        '{{"id":"msg_' || CAST(n AS text) || '","type":"message","role":"assistant","model":"claude-sonnet-5",'
        || '"content":[{{"type":"text","text":"It is ' || CAST(n AS text) || '."}}],"stop_reason":"end_turn",'
        || '"usage":{{"input_tokens": 90, "output_tokens": 300}}}}'
    FROM <series> WHERE n < <answered>
"""


def _count(connection: Connection, batch_id: str) -> None:
    """The counters of the batch, from its rows."""
    values: dict[str, Any] = {"of_batch": batch_id}
    connection.execute(text(_COUNTERS), values)


_COUNTERS = """
    UPDATE batch SET total = jobs.total, succeeded = jobs.succeeded, errored = jobs.errored,
        formula_tokens = jobs.total * 100, formula_tokens_answered = jobs.succeeded * 100,
        attempts = tries.attempts, cost_nanos = tries.cost, input_tokens = tries.input, output_tokens = tries.output,
        reserved_nanos = tries.reserved, started_at = created_at, ended_at = NULL
    FROM
        (SELECT count(*) AS total, count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
            count(*) FILTER (WHERE state = 'errored') AS errored FROM job WHERE batch_id = :of_batch) AS jobs,
        (SELECT count(*) AS attempts, coalesce(sum(cost_nanos), 0) AS cost, coalesce(sum(input_tokens), 0) AS input,
            coalesce(sum(output_tokens), 0) AS output,
            coalesce(sum(reserved_nanos) FILTER (WHERE outcome = 'open'), 0) AS reserved
            FROM attempt WHERE batch_id = :of_batch) AS tries
    WHERE id = :of_batch
"""


def _settle_down(database: Database) -> None:
    """What a database does by itself after a while: Postgres learns what is in its tables."""
    if database.dialect == "sqlite":
        return
    import psycopg  # noqa: PLC0415  # only where it is Postgres

    url = database._url.set(drivername="postgresql").render_as_string(hide_password=False)  # noqa: SLF001  # a bench
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
