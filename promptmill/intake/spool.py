"""The checked rows, kept aside until all are known to be good: a private SQLite file that nobody else sees.

It makes three promises cheap at any size: memory is flat, a generator need be run once only, and duplicates are
found by a sort instead of a set of a million names. SQLite deletes the file when it is closed, or when the
process dies; it lies in SQLITE_TMPDIR, TMPDIR or /var/tmp, and holds prompts while it exists.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from promptmill.experience import FIRST_GUESS
from promptmill.intake.forecast import Shape
from promptmill.intake.lines import Draft
from promptmill.store.columns import json_text

_ROWS_AT_ONCE = 500
_CACHE_KB = 16_384

_TABLES = """
CREATE TABLE row (
    seq INTEGER PRIMARY KEY, line INTEGER, custom_id TEXT, fingerprint TEXT, model TEXT, model_group TEXT,
    input_tokens INTEGER, ceiling INTEGER, inference_geo TEXT, speed TEXT, own TEXT, source TEXT
);
"""
# Every later row of a custom_id, with the line of its first.
_DUPLICATES = """
SELECT seq, line, first FROM (
    SELECT seq, line, row_number() OVER same AS nth, first_value(line) OVER same AS first
    FROM row WHERE custom_id IS NOT NULL WINDOW same AS (PARTITION BY custom_id ORDER BY seq)
) WHERE nth > 1
"""
# A row without a name is called by its line and its prompt. The line comes first so that names ascend: in the
# database's index of names, random ones cost half as much again per row, and more with every row.
_IN_ORDER = """
SELECT seq, coalesce(custom_id, printf('%08d-%s', line, substr(fingerprint, 1, 12))), fingerprint, model_group,
       input_tokens, ceiling, own, source
FROM row ORDER BY seq
"""
_SHAPE = "model, model_group, input_tokens, ceiling, inference_geo, speed"


@dataclass(slots=True)
class SpooledRow:
    """A checked row; `seq` counts from 0 and may have gaps where duplicates were left out.

    `input_tokens` is by formula alone, `output_tokens` a first guess: what is learned is learned against them.
    What is its own and its source are kept as the text that the database will hold.
    """

    seq: int
    custom_id: str
    fingerprint: str
    model_group: str
    input_tokens: int
    output_tokens: int
    own_text: str
    source_text: str | None

    @property
    def own(self) -> Mapping[str, Any]:
        """What is left of the request beside the shared fields."""
        fields: Mapping[str, Any] = json.loads(self.own_text)
        return fields

    @property
    def source(self) -> Mapping[str, Any] | None:
        """The caller's own row."""
        row: Mapping[str, Any] | None = None if self.source_text is None else json.loads(self.source_text)
        return row


class Spool:
    """Rows in, then all of them out again, in order."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-{_CACHE_KB}; {_TABLES} BEGIN;"
        )
        self._waiting: list[tuple[Any, ...]] = []
        self._added = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def add(
        self,
        *,
        line: int,
        draft: Draft,
        fingerprint: str,
        shape: Shape,
        own: Mapping[str, Any],
    ) -> None:
        """Keep one checked row; `own` is what is left of its request beside the shared fields."""
        self._waiting.append(
            (
                self._added,
                line,
                draft.custom_id,
                fingerprint,
                *shape,
                json_text(own),
                None if draft.source is None else json_text(draft.source),
            )
        )
        self._added += 1
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._flush()

    def models(self) -> dict[str, int]:
        """How many of the rows kept so far ask for each model, the most frequent first."""
        self._flush()
        return dict(self._db.execute("SELECT model, count(*) FROM row GROUP BY model ORDER BY 2 DESC"))

    def shapes(self) -> Iterator[tuple[Shape, int]]:
        """The rows kept so far, as far as their estimates differ, each with its number."""
        self._flush()
        for *shape, rows in self._db.execute(f"SELECT {_SHAPE}, count(*) FROM row GROUP BY {_SHAPE}"):  # noqa: S608  # constants
            yield Shape(*shape), rows

    def duplicates(self) -> Iterator[tuple[int, int]]:
        """(line, line of the first) of every row whose custom_id an earlier row has."""
        self._flush()
        for _, line, first in self._db.execute(_DUPLICATES):
            yield line, first

    def leave_out_duplicates(self) -> None:
        """Keep only the first row of every custom_id."""
        self._flush()
        self._db.execute(f"DELETE FROM row WHERE seq IN (SELECT seq FROM ({_DUPLICATES}))")  # noqa: S608  # a constant

    def rows(self) -> Iterator[SpooledRow]:
        """Every row in order; one without a custom_id is named `00000017-3f2a…`: its line and its prompt."""
        self._flush()
        found = self._db.execute(_IN_ORDER)
        guess = int(FIRST_GUESS)
        for seq, custom_id, fingerprint, group, input_tokens, ceiling, own, source in found:
            output_tokens = min(ceiling, guess)
            yield SpooledRow(seq, custom_id, fingerprint, group, input_tokens, output_tokens, own, source)

    def _flush(self) -> None:
        self._db.executemany("INSERT INTO row VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", self._waiting)
        self._waiting.clear()
