"""Resealing: what is stored is brought under the first key, or under none, page by page, while work goes on.

The one idea: a row is changed only if it still holds what was read, so nothing that is written meanwhile is undone.
What no key opens stays as it is, and is counted.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Connection, Text, and_, column, select, table, update

from promptmill.encryption import SEALED, Vault, sealed
from promptmill.store.sealing import KeyedWord, SealedJson, SealedText, unseal_if_possible, vault_of
from promptmill.store.tables import METADATA, attempt, batch, job, prompt, reply, schedule


@dataclass(frozen=True)
class Target:
    """A table and its sealed columns; those of `keyed` are only ever hashed."""

    name: str
    key: str
    sealed: tuple[str, ...]
    keyed: tuple[str, ...]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """All columns that may change."""
        return (*self.sealed, *self.keyed)


@dataclass(frozen=True, slots=True)
class Page:
    """What came of some rows.

    Attributes:
        after: the last key seen; None at the end.
        changed: rows that were rewritten.
        closed: rows that hold what no key opens, by the name of the batch or the schedule they belong to.
    """

    after: str | None
    changed: int
    closed: Mapping[str, int]


def targets() -> Sequence[Target]:
    """Every table that has a sealed column."""
    found = []
    for each in METADATA.sorted_tables:
        (key, *_) = each.primary_key.columns.keys()
        of_kind = {
            kinds: tuple(one.name for one in each.columns if isinstance(one.type, kinds))
            for kinds in ((SealedText, SealedJson), (KeyedWord,))
        }
        if any(of_kind.values()):
            found.append(Target(each.name, key, *of_kind.values()))
    return found


def page(conn: Connection, target: Target, after: str, size: int, *, plain: bool) -> Page:
    """Rewrite the rows after a key, as far as they can be opened.

    Args:
        conn: a transaction that writes, of a database that has keys.
        target: the table.
        after: a key, or an empty text.
        size: rows a page.
        plain: store them as they are, instead of under the first key.
    """
    # By names alone: types would seal and open what goes through.
    raw = table(target.name, *(column(each, Text) for each in (target.key, *target.columns)))
    key = raw.c[target.key]
    query = select(key, *(raw.c[each] for each in target.columns))
    rows = conn.execute(query.where(key > after).order_by(key).limit(size)).all()
    changed, closed = 0, []
    for row in rows:
        was = dict(zip(target.columns, row[1:], strict=True))
        new, is_open = _rewritten(conn, target, was, plain=plain)
        if new:
            is_same = and_(key == row[0], *(raw.c[each] == was[each] for each in new))
            changed += conn.execute(update(raw).where(is_same).values(new)).rowcount
        if not is_open:
            closed.append(row[0])
    return Page(
        rows[-1][0] if len(rows) == size else None, changed, _by_owner(conn, target, closed) if closed else {}
    )


_OF_JOB = job.c.id, select(batch.c.name).join(job, job.c.batch_id == batch.c.id)
_OWNERS = {
    batch.name: (batch.c.id, select(batch.c.name)),
    schedule.name: (schedule.c.id, select(schedule.c.name)),
    prompt.name: _OF_JOB,
    reply.name: _OF_JOB,
    attempt.name: (attempt.c.id, select(batch.c.name).join(attempt, attempt.c.batch_id == batch.c.id)),
}


def _by_owner(conn: Connection, target: Target, keys: Collection[str]) -> Mapping[str, int]:
    key, names = _OWNERS[target.name]
    return Counter(conn.scalars(names.where(key.in_(keys))))


def _rewritten(
    conn: Connection, target: Target, was: Mapping[str, str | None], *, plain: bool
) -> tuple[dict[str, str], bool]:
    """The columns that are to change, and whether all of them could be opened."""
    vault = vault_of(conn.dialect)
    new: dict[str, str] = {}
    is_open = True
    for name in target.sealed:
        stored = was[name]
        if stored is None or (not plain and vault and _is_current(vault, stored)):
            continue
        text = unseal_if_possible(conn.dialect, stored)
        if text is None:
            is_open = False
        elif (rewritten := sealed(None if plain else vault, text)) != stored:
            new[name] = rewritten
    if vault is not None and not plain:
        keyed = {name: vault.keyed(word) for name in target.keyed if (word := was[name]) is not None}
        new |= {name: word for name, word in keyed.items() if word != was[name]}
    return new, is_open


def _is_current(vault: Vault, stored: str) -> bool:
    return stored.startswith(SEALED) and vault.is_current(stored)
