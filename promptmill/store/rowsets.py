"""Many rows as one parameter: what an `UPDATE … FROM` of a whole group joins with.

The rows travel as one JSON text, so a statement has one wording whatever their number: SQLAlchemy
compiles it once, the driver prepares it once, and no limit on bound parameters applies.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, any_, bindparam, cast, column, func, literal_column, select
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.sql.selectable import NamedFromClause
from sqlalchemy.types import String, TypeDecorator, TypeEngine

from promptmill import jsontext
from promptmill.store.columns import JsonText, UTCDateTime, json_text, storable, time_text

_PARAMETER = "rows"
_NAME = "given"


class Rowset:
    """The shape of such rows: columns of a table, or `sqlalchemy.column(name, type)`."""

    def __init__(self, *columns: ColumnElement[Any]) -> None:
        self._types: dict[str, TypeEngine[Any]] = {str(each.key): each.type for each in columns}
        self._encoders = [(name, _encoder(kind)) for name, kind in self._types.items()]

    def on(self, dialect: str) -> NamedFromClause:
        """The rows as something to join with, called `given`."""
        if dialect == "sqlite":
            each = func.json_each(bindparam(_PARAMETER)).table_valued("value")
            return select(
                *(
                    func.json_extract(each.c.value, literal_column(f"'$.{name}'"), type_=kind).label(name)
                    for name, kind in self._types.items()
                )
            ).subquery(_NAME)
        return (
            func.json_to_recordset(cast(bindparam(_PARAMETER), JSON))
            .table_valued(*(column(name, kind) for name, kind in self._types.items()))
            .render_derived(name=_NAME, with_types=True)
        )

    def among(self, dialect: str, wanted: ColumnElement[Any]) -> ColumnElement[bool]:
        """True where `wanted` is one of the values of the first column, which is looked up in an index."""
        name = next(iter(self._types))
        return among(dialect, wanted, select(self.on(dialect).c[name]))

    def parameters(self, rows: Iterable[Sequence[Any]], **others: Any) -> dict[str, Any]:
        """The parameters of a statement over `rows`, with its other parameters."""
        encoded = [
            {
                name: value if value is None or encode is None else encode(value)
                for (name, encode), value in zip(self._encoders, row, strict=True)
            }
            for row in rows
        ]
        return {_PARAMETER: jsontext.written(encoded).decode(), **others}


def among(dialect: str, wanted: ColumnElement[Any], values: Select[Any]) -> ColumnElement[bool]:
    """True where `wanted`, which has an index, is one of the values selected."""
    if dialect == "sqlite":
        return wanted.in_(values)
    # An array: a subselect would be joined with, by the plan for a table that was empty a moment ago.
    return wanted == any_(func.array(values.scalar_subquery()))


def _encoder(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """How a Python value of this column type is put into JSON; None when it goes as it is."""
    if isinstance(kind, UTCDateTime):
        return time_text
    if isinstance(kind, JsonText):
        return json_text
    plain = kind.impl_instance if isinstance(kind, TypeDecorator) else kind
    return storable if isinstance(plain, String) else None
