"""What a submission is asked for: the options that `submit`, `run`, `estimate` and `schedule add` share.

The one idea: `Asked` is their only list. A command takes one `asked: Asked`, and `with_options` gives it an option for
each field; from there files are read, names are imported, and the options of intake come out.
"""

import functools
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import typer

from producers.cli import options as opt
from producers.cli.printing import say

if TYPE_CHECKING:
    from promptmill.intake.admit import Admission
    from promptmill.intake.options import SubmitOptions


_WRONG_BY_THEMSELVES = frozenset({"max_tokens", "model", "notify", "schema", "template"})
"""Options whose value may be found wrong after all were read; others only beside what is stored, or has no price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of a submission as they were typed."""

    model: opt.Model = None
    name: opt.Name = None
    max_tokens: opt.MaxTokens = None
    ask_again_up_to: opt.AskAgainUpTo = None
    system: opt.System = None
    template: opt.Template = None
    columns: opt.Columns = None
    schema: opt.Schema = None
    lane: opt.Lane = "auto"
    deadline: opt.Deadline = None
    budget: opt.Budget = None
    priority: opt.Priority = "normal"
    tags: opt.Tags = None
    notify: opt.Notify = None
    limit: opt.Limit = None
    skip_invalid: opt.SkipInvalid = False
    new: opt.New = False


def with_options(*without: str, **instead: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """In the place of its parameter `asked`, give a command an option for each field of Asked.

    Args:
        without: fields that this command has no option for; they keep their default.
        instead: by the name of a field, the type of an option that says it in this command's own words.
    """
    types = get_type_hints(Asked, include_extras=True) | instead
    options = {
        each.name: inspect.Parameter(
            each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=types[each.name]
        )
        for each in fields(Asked)
        if each.name not in without
    }

    def given(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def typed(**words: Any) -> None:
            asked = Asked(**{name: words.pop(name) for name in options})
            with _blamed_on_options():
                command(**words, asked=asked)

        shown: list[inspect.Parameter] = []
        for each in inspect.signature(command, eval_str=True).parameters.values():
            shown += options.values() if each.name == "asked" else [each]
        typed.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]  # Typer reads this, and the next
        typed.__annotations__ = {each.name: each.annotation for each in shown}
        return typed

    return given


@contextmanager
def _blamed_on_options() -> Iterator[None]:
    """What is wrong with the value of an option, and not with a row, is wrong usage, and told by the option's name."""
    from promptmill.errors import InvalidInput  # noqa: PLC0415  # the database layer takes 0.5 s

    try:
        yield
    except InvalidInput as error:
        if error.field not in _WRONG_BY_THEMSELVES or error.file is not None or error.line is not None:
            raise
        raise typer.BadParameter(error.why, param_hint=f"--{str(error.field).replace('_', '-')}") from error


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


def tell(admission: "Admission", *, goes_on: bool = True, has_ended: bool = False) -> None:
    """Say what was admitted, and what a person should know of it; of one that has ended, only that."""
    from producers.submission import notices  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.wording import several  # noqa: PLC0415  # likewise
    from producers.wrapping import folded  # noqa: PLC0415  # likewise
    from promptmill.pricing import usd  # noqa: PLC0415  # likewise

    if has_ended:
        say(
            f"{admission.name}: {several(admission.jobs, 'prompt')}, submitted before; nothing is left to ask"
        )
        return
    for notice in notices(admission):
        say(folded(f"note: {notice}"))
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
