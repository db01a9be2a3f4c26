"""The words people use for times, weights, money, lanes and schemas, and what they mean. Pure."""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, DecimalException
from typing import Any, NamedTuple

from promptmill.advice import ERROR_KINDS
from promptmill.catalogue import find_model
from promptmill.errors import InvalidInput
from promptmill.intake.options import DEFAULT_MAX_TOKENS
from promptmill.pricing import PriceBook
from promptmill.states import JobState, Lane
from promptmill.usage import Usage

NANOS_PER_DOLLAR = 1_000_000_000
MOST_DOLLARS = 9_000_000_000
"""What a column of 64 bits holds in nano-dollars."""
PRIORITIES = {"high": 10.0, "normal": 1.0, "low": 0.1}

RETRIED_BY_DEFAULT = (JobState.ERRORED, JobState.EXPIRED)
RETRIABLE = (*RETRIED_BY_DEFAULT, JobState.CANCELED)

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def deadline_of(value: str | timedelta | datetime, *, now: datetime) -> datetime:
    """The moment that `24h`, a timedelta or a datetime means; a moment without a zone is UTC.

    Raises:
        InvalidInput: it cannot be read, or is over already.
    """
    try:
        moment = _moment(value, now)
    except OverflowError:
        raise InvalidInput(f"{value} is further away than any calendar goes", field="deadline") from None
    if moment <= now:
        raise InvalidInput(f"{value} is over already", field="deadline")
    return moment


def _moment(value: str | timedelta | datetime, now: datetime) -> datetime:
    if isinstance(value, timedelta):
        return now + value
    if isinstance(value, str):
        if match := _DURATION.fullmatch(value.strip().lower()):
            return now + timedelta(**{_UNITS[match[2]]: float(match[1])})
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidInput(
                f"{value!r} is neither a duration such as 90m, 24h or 3d nor a moment such as 2026-12-01T18:00Z",
                field="deadline",
            ) from None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def duration_of(value: str, *, field: str) -> timedelta:
    """The time that `90m`, `24h` or `30d` means.

    Raises:
        InvalidInput: it cannot be read, or is longer than any calendar goes.
    """
    match = _DURATION.fullmatch(value.strip().lower())
    if not match:
        raise InvalidInput(
            f"{value!r} is no duration such as 90m, 24h or 30d; units are s, m, h, d and w", field=field
        )
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        raise InvalidInput(f"{value} is longer than any calendar goes", field=field) from None


def priority_of(value: str | float) -> float:
    """The weight that `high`, `normal`, `low` or a number means.

    Raises:
        InvalidInput: it is neither, or not above zero.
    """
    if isinstance(value, str) and value.lower() in PRIORITIES:
        return PRIORITIES[value.lower()]
    try:
        weight = float(value)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise InvalidInput(f"{value} is neither high, normal, low nor a weight above 0", field="priority")
    return weight


def budget_of(value: str | float | Decimal) -> int:
    """The nano-dollars of an amount in dollars: `50`, `"$0.25"`; what is finer than a nano-dollar is refused.

    A float is rounded to nano-dollars: 0.1 + 0.2 is $0.30.

    Raises:
        InvalidInput: it is no amount above zero.
    """
    # A float by its shortest text: 0.1 means a tenth, not the binary number next to it.
    text = str(value).strip().removeprefix("$")
    try:
        nanos = Decimal(text) * NANOS_PER_DOLLAR
        nanos = round(nanos, 0) if isinstance(value, float) else nanos
        exact = 0 < nanos <= MOST_DOLLARS * NANOS_PER_DOLLAR and nanos == int(nanos)
    except (DecimalException, ValueError):
        exact = False
    if not exact:
        raise InvalidInput(f"{value!r} is no amount in dollars such as 50 or 0.25", field="budget")
    return int(nanos)


def check_prices(models: Iterable[str], prices: PriceBook) -> None:
    """Raise InvalidInput for a model without a price: the first call of it would stop a batch with a budget."""
    for model in models:
        if prices.price_of(Usage(input_tokens=1), model=model) is None:
            raise InvalidInput(
                f"the price of {model} is unknown, so no budget can be kept: set it in promptmill.toml",
                field="budget",
            )


class Retried(NamedTuple):
    """Which jobs are to be retried: those that ended so, and those that errored of such a kind."""

    states: tuple[JobState, ...]
    kinds: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return " or ".join([*self.states, *(f"errored with {kind}" for kind in sorted(self.kinds))])


def retried_by(only: str | Collection[str] | None) -> Retried:
    """The jobs that outcomes (`errored`) and kinds of errors (`server_failed`) name.

    Raises:
        InvalidInput: it is none that can be retried.
    """
    if only is None:
        return Retried(RETRIED_BY_DEFAULT)
    names = [only] if isinstance(only, str) else list(only)
    for name in names:
        if name == JobState.SUCCEEDED:
            why = (
                "succeeded jobs are not retried, because they would be paid for twice; submit them with --new"
            )
            raise InvalidInput(why, field="only")
        if name not in RETRIABLE and name not in ERROR_KINDS:
            choices = f"{', '.join(RETRIABLE)}, nor a kind of error: {', '.join(sorted(ERROR_KINDS))}"
            raise InvalidInput(f"{name} is none of {choices}", field="only")
    states = tuple(state for state in RETRIABLE if state in names)
    kinds = frozenset() if JobState.ERRORED in states else ERROR_KINDS.intersection(names)
    return Retried(states, kinds)


def check_truncation(ask_again_up_to: int, *, max_tokens: int | None, model: str | None) -> None:
    """Raise InvalidInput for a cap that no answer could grow to, or that the model does not allow."""
    field = "ask-again-up-to"
    if ask_again_up_to <= (max_tokens or DEFAULT_MAX_TOKENS):
        which = "" if max_tokens else ", which holds where none is named"
        raise InvalidInput(
            f"{ask_again_up_to:,} is not above the {max_tokens or DEFAULT_MAX_TOKENS:,} of max_tokens{which}",
            field=field,
        )
    facts = find_model(model) if model else None
    if facts is not None and ask_again_up_to > facts.max_output_tokens:
        raise InvalidInput(
            f"{ask_again_up_to:,} is above the {facts.max_output_tokens:,} of {facts.id}", field=field
        )


def lane_of(value: str) -> Lane:
    """How prompts travel.

    Raises:
        InvalidInput: there is no such lane yet.
    """
    if value in ("auto", Lane.REALTIME):
        return Lane.REALTIME
    if value == Lane.BULK:
        raise InvalidInput("the bulk lane is not in this version; use auto or realtime", field="lane")
    raise InvalidInput(f"{value} is neither auto nor realtime", field="lane")


def schema_of(value: object) -> Mapping[str, Any]:
    """The JSON schema of a pydantic model class, or the schema itself.

    Raises:
        InvalidInput: it is neither.
    """
    if isinstance(value, Mapping):
        return value
    describe = getattr(value, "model_json_schema", None)
    if not isinstance(value, type) or not callable(describe):
        raise InvalidInput("a pydantic model class or a JSON schema is needed", field="schema")
    schema: Mapping[str, Any] = describe()
    return schema


def tags_of(pairs: list[str] | None) -> dict[str, str]:
    """The tags that `k=v` pairs mean.

    Raises:
        InvalidInput: a pair has no `=` or no name.
    """
    tags = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise InvalidInput(f"{pair!r} is not of the form name=value", field="tag")
        tags[name] = value
    return tags
