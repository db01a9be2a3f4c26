"""Facts about models, dated and with their source: windows, limits, lifecycle, rate-limit group.

One idea: limits belong to a *group* of models, not to a model (claude-api.md, 5.2), so everything that counts
against a limit asks `group_of`. A model that is not listed is a group of its own, and nothing is assumed
about it. A user adds models the release does not know through `Catalogue(extra)`.

Sources: claude-api.md 5.2 (groups), 9.1 (windows, lifecycle), 2.5 (caching), 2.3 (thinking), read on the date of
`CHECKED`; Anthropic's model deprecations page for models retired before 2026.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from promptmill.errors import ConfigurationError

CHECKED = date(2026, 11, 22)

_LONG_WINDOW = 1_000_000
_SHORT_WINDOW = 200_000
_LONG_OUTPUT = 128_000
_SHORT_OUTPUT = 64_000
_BULK_OUTPUT = 300_000  # with the beta output-300k-2026-03-24, Message Batches only (claude-api.md, 7.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known of one model.

    Attributes:
        id: the name Anthropic answers with.
        aliases: other names that mean the same model.
        group: the models it shares its rate limit with.
        context_window: tokens of prompt and answer together.
        max_output_tokens: the largest `max_tokens` of a Messages call.
        bulk_max_output_tokens: the same inside a MessageBatch with the 300k beta; None when it has none.
        dense_tokenizer: True for the tokenizer of Claude 4.7 and later, which counts about 30 % more tokens.
        thinks_by_default: True when thinking is on unless switched off.
        takes_effort: False where `output_config.effort` is an error.
        minimum_cacheable: tokens below which a prefix is silently not cached; None when unknown.
        retires_on: the announced day from which requests fail; None while nothing is announced.
        retires_not_before: the earliest day it may retire, as promised at release.
    """

    id: str
    group: str
    context_window: int = _LONG_WINDOW
    max_output_tokens: int = _LONG_OUTPUT
    bulk_max_output_tokens: int | None = None
    aliases: tuple[str, ...] = ()
    dense_tokenizer: bool = True
    thinks_by_default: bool = False
    takes_effort: bool = True
    minimum_cacheable: int | None = None
    retires_on: date | None = None
    retires_not_before: date | None = None

    def is_retired(self, on: date) -> bool:
        """True when requests to it fail on that day."""
        return self.retires_on is not None and on >= self.retires_on


def _current() -> Iterable[ModelFacts]:
    fable, mythos = "claude-fable-5.x", "claude-mythos-5.x"
    for name, minimum, until in (
        ("5-2", None, None),
        ("5-1", 512, date(2027, 9, 1)),
        ("5", 512, date(2027, 6, 9)),
    ):
        for line, group in (("fable", fable), ("mythos", mythos)):
            yield ModelFacts(
                id=f"claude-{line}-{name}",
                group=group,
                thinks_by_default=True,
                minimum_cacheable=minimum,
                retires_not_before=until,
            )
    for own_bucket, minimum, until in (
        ("claude-opus-5-5", 512, date(2027, 9, 22)),
        ("claude-opus-5", 512, date(2027, 7, 24)),
        ("claude-sonnet-5-5", 512, date(2027, 9, 28)),
        ("claude-sonnet-5", 1024, date(2027, 6, 30)),
        ("claude-haiku-5-5", 512, date(2027, 10, 7)),
    ):
        yield ModelFacts(
            id=own_bucket,
            group=own_bucket,
            bulk_max_output_tokens=_BULK_OUTPUT,
            thinks_by_default=True,
            minimum_cacheable=minimum,
            retires_not_before=until,
        )
    for opus, minimum, until in (
        ("claude-opus-4-8", 1024, date(2027, 5, 28)),
        ("claude-opus-4-7", 2048, date(2027, 4, 16)),
        ("claude-opus-4-6", 4096, date(2027, 2, 5)),
    ):
        yield ModelFacts(
            id=opus,
            group="claude-opus-4.x",
            bulk_max_output_tokens=_BULK_OUTPUT,
            dense_tokenizer=opus != "claude-opus-4-6",
            minimum_cacheable=minimum,
            retires_not_before=until,
        )
    yield ModelFacts(
        id="claude-sonnet-4-6",
        group="claude-sonnet-4.x",
        bulk_max_output_tokens=_BULK_OUTPUT,
        dense_tokenizer=False,
        minimum_cacheable=1024,
        retires_not_before=date(2027, 2, 17),
    )


def _generation_4_5() -> Iterable[ModelFacts]:
    for alias, day, group, minimum, announced, earliest in (
        ("claude-opus-4-5", "20251101", "claude-opus-4.x", 4096, None, date(2026, 11, 24)),
        ("claude-sonnet-4-5", "20250929", "claude-sonnet-4.x", 1024, date(2026, 11, 30), None),
        ("claude-haiku-4-5", "20251001", "claude-haiku-4-5", 4096, None, date(2026, 10, 15)),
    ):
        yield ModelFacts(
            id=f"{alias}-{day}",
            aliases=(alias,),
            group=group,
            context_window=_SHORT_WINDOW,
            max_output_tokens=_SHORT_OUTPUT,
            dense_tokenizer=False,
            takes_effort=alias == "claude-opus-4-5",
            minimum_cacheable=minimum,
            retires_on=announced,
            retires_not_before=earliest,
        )


# name, aliases, the day from which requests fail
_RETIRED: tuple[tuple[str, tuple[str, ...], date], ...] = (
    ("claude-mythos-preview", (), date(2026, 6, 30)),
    ("claude-opus-4-1-20250805", ("claude-opus-4-1",), date(2026, 8, 5)),
    ("claude-opus-4-20250514", ("claude-opus-4-0", "claude-opus-4"), date(2026, 6, 15)),
    ("claude-sonnet-4-20250514", ("claude-sonnet-4-0", "claude-sonnet-4"), date(2026, 6, 15)),
    ("claude-3-haiku-20240307", ("claude-3-haiku",), date(2026, 4, 20)),
    ("claude-3-7-sonnet-20250219", ("claude-3-7-sonnet-latest", "claude-3-7-sonnet"), date(2026, 2, 19)),
    ("claude-3-5-haiku-20241022", ("claude-3-5-haiku-latest", "claude-3-5-haiku"), date(2026, 2, 19)),
    ("claude-3-opus-20240229", ("claude-3-opus-latest", "claude-3-opus"), date(2026, 1, 5)),
    ("claude-3-5-sonnet-20241022", ("claude-3-5-sonnet-latest", "claude-3-5-sonnet"), date(2025, 10, 28)),
    ("claude-3-5-sonnet-20240620", (), date(2025, 10, 28)),
    ("claude-3-sonnet-20240229", ("claude-3-sonnet",), date(2025, 7, 21)),
    ("claude-2.1", (), date(2025, 7, 21)),
    ("claude-2.0", ("claude-2",), date(2025, 7, 21)),
    ("claude-instant-1.2", ("claude-instant-1",), date(2024, 11, 6)),
)


def _retired() -> Iterable[ModelFacts]:
    for name, aliases, day in _RETIRED:
        yield ModelFacts(
            id=name,
            aliases=aliases,
            group=name,
            context_window=_SHORT_WINDOW,
            max_output_tokens=_SHORT_OUTPUT,
            dense_tokenizer=False,
            takes_effort=False,
            retires_on=day,
        )


_PUBLISHED: tuple[ModelFacts, ...] = (*_current(), *_generation_4_5(), *_retired())
_DATED = re.compile(r"(?P<name>.+)[-@]\d{8}")


class Catalogue:
    """The published models, and those a user added.

    Args:
        extra: model → any fields of ModelFacts, dates as text if need be. A model that is published already
            keeps its other facts.

    Raises:
        ConfigurationError: a field does not exist or has a wrong value.
    """

    def __init__(self, extra: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._models = {facts.id: facts for facts in _PUBLISHED}
        self._names = {name: facts.id for facts in _PUBLISHED for name in (facts.id, *facts.aliases)}
        for name, fields in (extra or {}).items():
            self._add(self._names.get(name, name), fields)

    def find_model(self, name: str) -> ModelFacts | None:
        """The facts of a model by its id or an alias; None when nothing is known."""
        known = self._names.get(name)
        return self._models[known] if known else None

    def group_of(self, model: str) -> str:
        """The rate-limit group; an unknown model is a group of its own.

        A dated name of a known model shares its group, so that a snapshot is never taken for a bucket of its own.
        """
        known = self.find_model(model)
        if known is None and (dated := _DATED.fullmatch(model)):
            known = self.find_model(dated["name"])
        return known.group if known else model

    def models(self) -> tuple[ModelFacts, ...]:
        """Every model, the current ones first."""
        return tuple(self._models.values())

    def near(self, name: str, on: date) -> list[str]:
        """Up to three names of models that are alive on that day and look like `name`."""
        alive = [known for known, model in self._names.items() if not self._models[model].is_retired(on)]
        return difflib.get_close_matches(name.lower(), alive, n=3, cutoff=0.6)

    def _add(self, model: str, fields: Mapping[str, Any]) -> None:
        known = self._models.get(model)
        base = {"id": model, "group": model}
        if known is not None:
            base = {name: getattr(known, name) for name in ModelFacts.__slots__}
        facts = _validate(f"models.{model}", {**base, **fields, "id": model})
        self._models[model] = facts
        self._names.update(dict.fromkeys((model, *facts.aliases), model))


def _validate(setting: str, fields: Mapping[str, Any]) -> ModelFacts:
    # Imported late: needed only by a user who added a model.
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415

    if strange := sorted(set(fields) - set(ModelFacts.__slots__)):
        raise ConfigurationError(f"{setting}: unknown field {strange[0]}", setting=setting)
    try:
        return TypeAdapter(ModelFacts).validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = f"{setting}.{first['loc'][0]}"
        raise ConfigurationError(f"{field}: {first['msg']}", setting=field) from None


CATALOGUE = Catalogue()


def limit_group(group: str, speed: object) -> str:
    """The rate-limit group of a call to a model of `group`: fast mode has limits of its own (claude-api.md, 9.4)."""
    return f"{group}-fast" if speed == "fast" else group


def find_model(name: str) -> ModelFacts | None:
    """The published facts of a model by its id or an alias; None when nothing is known."""
    return CATALOGUE.find_model(name)


def group_of(model: str) -> str:
    """The rate-limit group of a published model; an unknown model is a group of its own."""
    return CATALOGUE.group_of(model)
