"""Admission: the rows of a batch being read. A broken submit is simply repeated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from promptmill.ids import new_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """One job to be admitted.

    Attributes:
        seq: its place in the submission, from 0; unique in the batch.
        custom_id: the caller's name for it; unique in the batch.
        body: the prompt's own fields; the rest is in the batch's `shared`.
        fingerprint: of the whole Prompt.
        source: the caller's input row, kept for the results.
    """

    seq: int
    custom_id: str
    model_group: str
    body: Mapping[str, Any]
    fingerprint: str
    estimated_input_tokens: int
    estimated_output_tokens: int
    source: Mapping[str, Any] | None = None
    id: str = field(default_factory=lambda: new_id("job"))


def insert_many(conn: Connection, batch_id: str, rows: Sequence[NewJob], now: datetime) -> int:
    """Insert `pending` jobs into a batch that is not sealed; how many were new.

    A row that is there already (same custom_id, same fingerprint) is skipped.

    Raises:
        InvalidInput: a custom_id is there with another prompt, or twice in `rows`, or a seq is taken.
        InvalidTransition: the batch is sealed and a row is new.
    """
    raise NotImplementedError
