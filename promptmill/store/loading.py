"""Loading: the jobs that messages name, each with its prompt, what it shares with its batch, and its tries so far.

The one idea: many jobs a time, in one statement for each of the three.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from http import HTTPStatus
from typing import Any

from sqlalchemy import Connection, Row, Select, Text, case, func, select, type_coerce

from promptmill import jsontext
from promptmill.prompts import Prompt, merge
from promptmill.states import BatchState, JobState, Lane
from promptmill.store.ledger import OPEN, SUCCEEDED
from promptmill.store.prepared import Prepared
from promptmill.store.rowsets import Rowset
from promptmill.store.sealing import unseal_if_possible
from promptmill.store.tables import attempt, batch, job, prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedJob:
    """A job with its prompt and what of its batch a worker must know.

    Attributes:
        prompt: the job's own fields over what its batch shares.
        failures: closed attempts by outcome (`rate_limited`, `lost` …), without the succeeded.
        first_failed_at: when the first attempt with each of these outcomes was opened.
        begun: of these attempts, those whose answer began and then broke off.
        first_opened_at: when its first attempt was opened; None before that. What was forgiven does not count.
        resumed_at: when its batch last went on after a pause.
        forgiven: the number of its last attempt before a person had it tried anew; 0 when nobody did.
    """

    id: str
    batch_id: str
    batch_name: str
    batch_state: BatchState
    custom_id: str
    state: JobState
    dispatch: int
    token: int
    attempts: int
    model_group: str
    prompt: Prompt
    lane: Lane
    endpoint: str
    simulated: bool
    deadline: datetime | None
    priority: float
    estimated_input_tokens: int
    estimated_output_tokens: int
    options: Mapping[str, Any]
    template: str | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    first_failed_at: Mapping[str, datetime] = field(default_factory=dict)
    begun: Mapping[str, int] = field(default_factory=dict)
    first_opened_at: datetime | None = None
    resumed_at: datetime | None = None
    forgiven: int = 0


def load(conn: Connection, ids: Collection[str]) -> dict[str, LoadedJob]:
    """The jobs with those ids, by id; an unknown id is missing in the answer, and one that is `unreadable`."""
    wanted = _IDS.parameters((each,) for each in ids)
    rows = _LOAD.run(conn, wanted).all()
    batches = batches_of(conn, {row.batch_id for row in rows})
    histories = _histories(conn, [row.id for row in rows if row.attempts])
    shared = {each.id: unseal_if_possible(conn.dialect, each.shared) for each in batches.values()}
    loaded = {}
    for row in rows:
        of = batches[row.batch_id]
        body = unseal_if_possible(conn.dialect, row.body)
        if body is not None and (common := shared[of.id]) is not None:
            loaded[row.id] = _loaded(row, body, common, of, histories[row.id])
    return loaded


def batches_of(conn: Connection, batch_ids: Collection[str]) -> dict[str, Row[Any]]:
    """What a job takes from its batch, by the id of the batch."""
    rows = conn.execute(_load_batches(conn.dialect.name), _IDS.parameters((each,) for each in batch_ids))
    return {row.id: row for row in rows}


_IDS = Rowset(job.c.id)
_LOADED = (
    "id",
    "batch_id",
    "custom_id",
    "state",
    "dispatch",
    "token",
    "attempts",
    "forgiven",
    "model_group",
    "estimated_input_tokens",
    "estimated_output_tokens",
)
_OF_BATCH = (
    "id",
    "name",
    "state",
    "lane",
    "model",
    "endpoint",
    "simulated",
    "priority",
    "deadline",
    "options",
    "template",
    "resumed_at",
)


def _load(dialect: str) -> Select[Any]:
    return (
        select(*(job.c[name] for name in _LOADED), prompt.c.body)
        .join_from(job, prompt, prompt.c.job_id == job.c.id)
        .where(_IDS.among(dialect, job.c.id))
    )


_LOAD = Prepared(_load)


@cache
def _load_batches(dialect: str) -> Select[Any]:
    # As it is stored: one that no key opens must not keep the others from being loaded.
    shared = type_coerce(batch.c.shared, Text).label("shared")
    return select(*(batch.c[name] for name in _OF_BATCH), shared).where(_IDS.among(dialect, batch.c.id))


@dataclass(slots=True)
class _History:
    """The attempts of a job so far."""

    failures: dict[str, int] = field(default_factory=dict)
    first_failed_at: dict[str, datetime] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)
    first_opened_at: datetime | None = None

    def add(self, outcome: str, times: int, first: datetime, begun: int) -> None:
        self.first_opened_at = min(first, self.first_opened_at or first)
        if outcome not in (OPEN, SUCCEEDED):
            self.failures[outcome] = times
            self.first_failed_at[outcome] = first
            self.begun[outcome] = begun


def _histories(conn: Connection, job_ids: Collection[str]) -> defaultdict[str, _History]:
    histories: defaultdict[str, _History] = defaultdict(_History)
    if job_ids:
        wanted = _IDS.parameters((each,) for each in job_ids)
        for row in conn.execute(_attempts(conn.dialect.name), wanted):
            histories[row.job_id].add(row.outcome, row.times, row.first, row.begun)
    return histories


@cache
def _attempts(dialect: str) -> Select[Any]:
    return (
        select(
            attempt.c.job_id,
            attempt.c.outcome,
            func.count().label("times"),
            func.min(attempt.c.opened_at).label("first"),
            func.sum(case((attempt.c.status < HTTPStatus.BAD_REQUEST, 1), else_=0)).label("begun"),
        )
        .join(job, job.c.id == attempt.c.job_id)
        .where(_IDS.among(dialect, attempt.c.job_id), attempt.c.number > job.c.forgiven)
        .group_by(attempt.c.job_id, attempt.c.outcome)
    )


def _loaded(row: Row[Any], body: str, shared: str, of: Row[Any], history: _History) -> LoadedJob:
    return LoadedJob(
        id=row.id,
        batch_id=row.batch_id,
        batch_name=of.name,
        batch_state=BatchState(of.state),
        custom_id=row.custom_id,
        state=JobState(row.state),
        dispatch=row.dispatch,
        token=row.token,
        attempts=row.attempts,
        model_group=row.model_group,
        prompt=merge(jsontext.read(shared), jsontext.read(body)),
        lane=Lane(of.lane),
        endpoint=of.endpoint,
        simulated=of.simulated,
        deadline=of.deadline,
        priority=of.priority,
        estimated_input_tokens=row.estimated_input_tokens,
        estimated_output_tokens=row.estimated_output_tokens,
        options=of.options,
        template=of.template,
        failures=history.failures,
        first_failed_at=history.first_failed_at,
        begun=history.begun,
        first_opened_at=history.first_opened_at,
        resumed_at=of.resumed_at,
        forgiven=row.forgiven,
    )
