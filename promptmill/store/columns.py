"""Column types that mean the same on SQLite and Postgres: times, JSON, and text that both can hold.

JSON is kept as text, because `jsonb` cannot hold U+0000 and would reorder the fields of an answer.
"""

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy import DateTime, Dialect, String, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

from promptmill import jsontext

_TIME_LENGTH = len("2026-01-01T00:00:00.000000Z")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


class UTCDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC: `timestamptz` on Postgres, fixed-width ISO text on SQLite, which sorts as time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Text on SQLite, which has no time type and drops zones."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(_TIME_LENGTH))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse a naive datetime, because nobody can know what it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return time_text(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002  # the signature is SQLAlchemy's
        """Always UTC, whatever zone the connection speaks."""
        if value is None:
            return None
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.astimezone(UTC)


class PlainText(TypeDecorator[str]):
    """Text for people; what no database can hold (U+0000, lone surrogates) becomes U+FFFD."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002  # the signature is SQLAlchemy's
        """Replace what cannot be stored."""
        return None if value is None else storable(value)


class JsonText(TypeDecorator[Any]):
    """A JSON value as text, its fields in the order given; every Python string survives."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002  # the signature is SQLAlchemy's
        """None is stored as NULL, not as the text `null`."""
        return None if value is None else json_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002  # the signature is SQLAlchemy's
        """Parse the text."""
        return None if value is None else jsontext.read(value)


def time_text(moment: datetime) -> str:
    """ISO 8601 in UTC with microseconds and `Z`: equal length, so that order of text is order of time."""
    in_utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return in_utc.isoformat(timespec="microseconds")[: _TIME_LENGTH - 1] + "Z"


def storable(text: str) -> str:
    """The text with U+FFFD for what no database can hold."""
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def json_text(value: Any) -> str:
    """Compact JSON of any value; a number JSON does not know (NaN, infinity) becomes null."""
    try:
        return to_json(value, inf_nan_mode="null").decode()
    except PydanticSerializationError:  # a lone surrogate, which only an escape can carry
        return json.dumps(_finite(value), separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
