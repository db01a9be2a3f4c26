"""Counts that are kept and not counted: failed attempts by outcome, answers by stop reason, failed jobs by their error.

Kind to a large Postgres, as 0002: the columns come first and are filled in page by page, then the index is made beside
the work, all outside of any transaction; after an interruption it goes on. Then everything is counted, once, and only
then `batch`, which the new table refers to, is locked for a moment. No worker may run meanwhile (`store.schema`): what
one of the older version reports is in no count.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from promptmill.store.columns import json_text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        with op.get_context().autocommit_block():
            _add_columns(if_not_exists=True)
            _fill_in_page_by_page(op.get_bind())
            _drop_half_an_index()
            _index_failures(postgresql_concurrently=True, if_not_exists=True)
    else:
        _add_columns()
        op.execute(_FILL_IN)
        _index_failures()
    counted = list(_counted(op.get_bind()))
    table = op.create_table(
        "batch_count",
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("word", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "what", "word", name="batch_count_pkey"),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batch.id"], ondelete="CASCADE", name="batch_count_batch_id_fkey"
        ),
    )
    op.bulk_insert(table, counted)


def _add_columns(**how: Any) -> None:
    for name, kind in (("error_status", sa.Integer()), ("error_type", sa.Text()), ("error_code", sa.Text())):
        op.add_column("job", sa.Column(name, kind, nullable=True), **how)


def _drop_half_an_index() -> None:
    """What an interruption leaves: it is never used, and every write keeps it up."""
    half = sa.text("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('job_failed') AND NOT indisvalid")
    if op.get_bind().execute(half).first() is not None:
        op.drop_index("job_failed", postgresql_concurrently=True)


def _index_failures(**how: Any) -> None:
    ended_badly = sa.text("state IN ('errored', 'expired')")
    op.create_index(
        "job_failed",
        "job",
        ["batch_id", "state", "error_kind", "error_status", "error_type", "error_code", "seq"],
        sqlite_where=ended_badly,
        postgresql_where=ended_badly,
        **how,
    )


def _fill_in_page_by_page(conn: sa.Connection) -> None:
    """Each page by itself, so that nobody waits for a row longer than for a page."""
    page = sa.text(_FILL_IN_A_PAGE)
    after: str | None = ""
    while after is not None:
        after = conn.execute(page, {"after": after, "most": _PAGE}).scalar_one()


def _counted(conn: sa.Connection) -> Iterator[dict[str, Any]]:
    """The rows of the new table: of each batch and kind the _MOST_WORDS largest by themselves, the others together."""
    found: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for batch_id, what, word, number in conn.execute(sa.text(_COUNT)):
        found[batch_id, what][word] = number
    for batch_id, *said, number in conn.execute(sa.text(_COUNT_FAILED)):
        found[batch_id, "failed"][json_text(said)] = number
    for (batch_id, what), words in found.items():
        largest = words.most_common(None if what == "outcome" else _MOST_WORDS)
        together = Counter(dict(largest))
        for word in words.keys() - together.keys():
            other = (
                json_text([json.loads(word)[0], "other", None, None, None]) if what == "failed" else "other"
            )
            together[other] += words[word]
        for word, number in together.items():
            yield {"batch_id": batch_id, "what": what, "word": word, "number": number}


_MOST_WORDS = 50
_PAGE = 5_000
_LONGEST_WORD = 100  # characters; an index of Postgres holds no more than 2,704 bytes
_SAID = f"""
    error_status = said.status, error_type = substr(said.error_type, 1, {_LONGEST_WORD}),
    error_code = substr(said.error_code, 1, {_LONGEST_WORD})
"""
_IS_SAID_OF = "said.job_id = job.id AND said.number = job.attempts AND said.outcome = job.error_kind"
_MAY_HAVE_FAILED = "job.state IN ('errored', 'expired', 'pending') AND job.error_kind IS NOT NULL"
_FILL_IN = f"UPDATE job SET {_SAID} FROM attempt AS said WHERE {_MAY_HAVE_FAILED} AND {_IS_SAID_OF}"  # noqa: S608  # words of this file alone
_FILL_IN_A_PAGE = f"""
    WITH page AS (
        SELECT id FROM job WHERE id > :after AND {_MAY_HAVE_FAILED} ORDER BY id LIMIT :most
    ), filled_in AS (
        UPDATE job SET {_SAID} FROM page, attempt AS said WHERE job.id = page.id AND {_MAY_HAVE_FAILED} AND {_IS_SAID_OF}
    )
    SELECT max(id) FROM page
"""  # noqa: S608  # likewise
_COUNT_FAILED = """
    SELECT batch_id, state, error_kind, error_status, error_type, error_code, count(*)
    FROM job WHERE state IN ('errored', 'expired')
    GROUP BY batch_id, state, error_kind, error_status, error_type, error_code
"""
_COUNT = f"""
    SELECT attempt.batch_id, 'outcome' AS what, outcome AS word, count(*) AS number
    FROM attempt JOIN batch ON batch.id = attempt.batch_id
    WHERE outcome NOT IN ('open', 'succeeded') GROUP BY attempt.batch_id, outcome
    UNION ALL
    SELECT found.batch_id, 'stop_reason', found.word, count(*)
    FROM (
        SELECT attempt.batch_id, substr(attempt.stop_reason, 1, {_LONGEST_WORD}) AS word
        FROM attempt WHERE outcome = 'succeeded'
        UNION ALL
        SELECT attempt.batch_id, substr(reply.stop_reason, 1, {_LONGEST_WORD})
        FROM attempt JOIN reply ON reply.attempt_id = attempt.id AND reply.job_id = attempt.job_id
        JOIN job ON job.id = reply.job_id
        WHERE attempt.outcome = 'truncated' AND job.state = 'succeeded'
    ) AS found JOIN batch ON batch.id = found.batch_id
    WHERE found.word NOT IN ('end_turn', 'stop_sequence', 'tool_use')
    GROUP BY found.batch_id, found.word
"""  # noqa: S608  # likewise
