"""From the options of `submit` and `run` to those of intake: files are read, names are imported."""

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from producers.cli.printing import say

if TYPE_CHECKING:
    from promptmill.intake.admit import Admission
    from promptmill.intake.options import SubmitOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of a submission as they were typed."""

    model: str | None
    name: str | None
    max_tokens: int | None
    ask_again_up_to: int | None
    system: str | None
    template: str | None
    columns: str | None
    schema: str | None
    lane: str
    deadline: str | None
    budget: str | None
    priority: str
    tags: list[str] | None
    notify: str | None = None
    limit: int | None
    skip_invalid: bool
    new: bool


def options_from(asked: Asked) -> "SubmitOptions":
    """The options that were meant.

    Raises:
        typer.BadParameter: a file or a name is missing, or a word has no meaning.
    """
    from producers.submission import options_for  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.terms import tags_of  # noqa: PLC0415  # likewise
    from promptmill.errors import InvalidInput  # noqa: PLC0415  # likewise

    try:
        return options_for(
            model=asked.model,
            name=asked.name,
            max_tokens=asked.max_tokens,
            ask_again_up_to=asked.ask_again_up_to,
            system=_text(asked.system, "--system"),
            template=_text(asked.template, "--template"),
            columns=asked.columns.split(",") if asked.columns else None,
            schema=None if asked.schema is None else _schema(asked.schema),
            lane=asked.lane,
            deadline=asked.deadline,
            budget=asked.budget,
            priority=asked.priority,
            tags=tags_of(asked.tags),
            notify=asked.notify,
            limit=asked.limit,
            skip_invalid=asked.skip_invalid,
            new=asked.new,
        )
    except InvalidInput as error:
        raise typer.BadParameter(error.why, param_hint=f"--{error.field}") from error


def tell(admission: "Admission", *, goes_on: bool = True) -> None:
    """Say what was admitted, and what a person should know of it."""
    from producers.submission import notices  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.wording import several  # noqa: PLC0415  # likewise
    from promptmill.pricing import usd  # noqa: PLC0415  # likewise

    for notice in notices(admission):
        say(f"note: {notice}")
    cost = usd(admission.estimate.cost_nanos)
    before = ", submitted before" + (": going on with them" if goes_on else "")
    say(
        f"{admission.name}: {several(admission.jobs, 'prompt')}"
        + (before if admission.resumed else "")
        + f"; estimated {admission.estimate.input_tokens:,} tokens in, {admission.estimate.output_tokens:,} out, "
        + (f"${cost}" if cost else "cost unknown")
    )


def _text(value: str | None, option: str) -> str | None:
    """The text itself, or with `@` in front what the file holds."""
    if value is None or not value.startswith("@"):
        return value
    path = Path(value[1:])
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint=option) from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{path}: not UTF-8", param_hint=option) from error


def _schema(value: str) -> Any:
    """A JSON schema from a `.json` file, or a class that `package.module:Name` names."""
    if value.endswith(".json"):
        text = _text(f"@{value.removeprefix('@')}", "--schema")
        try:
            return json.loads(text or "")
        except ValueError as error:
            raise typer.BadParameter(f"{value}: {error}", param_hint="--schema") from error
    module, colon, name = value.partition(":")
    if not colon:
        raise typer.BadParameter("give package.module:Model or a .json file", param_hint="--schema")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a model of the person's own lies in the working directory
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise typer.BadParameter(str(error), param_hint="--schema") from error
