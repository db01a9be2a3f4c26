"""Templates: the fields of a row become the text of a prompt. Jinja2, in its sandbox.

The template is the user's, the values are data: what a value holds is never rendered again. An undefined
field is an error, because a prompt with a hole in it costs as much as a whole one.
"""

import re
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from promptmill.errors import InvalidInput

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2 import Template as JinjaTemplate

# About a million tokens: more than any window holds.
LONGEST_RESULT = 8_000_000
_MOST_BITS = 10_000  # of a number that a template computes
_WIDE = re.compile(r"%[^a-zA-Z%]*\d{6}|\{[^{}]*:[^{}]*\d{6}")
_WIDTH_IS_GIVEN = re.compile(r"%[^a-zA-Z%]*\*|\{[^{}]*:[^{}]*\{")
_FIELD = "template"


class Template:
    """A template, compiled once.

    Args:
        text: the template itself, not the name of a file.
        given: variables for all rows; the fields of a row go first.

    Raises:
        InvalidInput: its syntax is wrong; the line is that of the template.
    """

    def __init__(self, text: str, given: Mapping[str, Any] | None = None) -> None:
        # Imported late: only a submit with a template needs it.
        from jinja2 import TemplateSyntaxError  # noqa: PLC0415

        environment = _sandbox()
        try:
            self._template: JinjaTemplate = environment.from_string(text, globals=dict(given or {}))
        except TemplateSyntaxError as error:
            raise InvalidInput(
                f"line {error.lineno} of the template: {error.message}", field=_FIELD
            ) from None

    def render(self, row: Mapping[str, Any]) -> str:
        """The text for one row; fields are variables, and `row` is the whole row.

        Raises:
            InvalidInput: a field is missing, the template fails, or the result is too long.
        """
        from jinja2 import TemplateError  # noqa: PLC0415

        pieces, length = [], 0
        try:
            for piece in self._template.generate({"row": row, **row}):
                pieces.append(piece)
                length += len(piece)
                if length > LONGEST_RESULT:
                    raise InvalidInput(f"the prompt grew over {LONGEST_RESULT:,} characters", field=_FIELD)
        except TemplateError as error:
            raise InvalidInput(f"{_line_of(error)}: {error.message}{_hint(row)}", field=_FIELD) from None
        except (ArithmeticError, LookupError, OverflowError, TypeError, ValueError) as error:
            raise InvalidInput(f"{_line_of(error)}: {type(error).__name__}", field=_FIELD) from None
        return "".join(pieces)


def _sandbox() -> "Environment":
    """Jinja2's, in which neither multiplying nor padding makes anything that would fill the memory."""
    from jinja2 import StrictUndefined  # noqa: PLC0415  # see above
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415  # likewise

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**", "%"})

        def call(self, context: Any, obj: Any, /, *args: Any, **options: Any) -> Any:
            method = getattr(obj, "__wrapped__", obj)  # Jinja2 puts its own around `format`
            text, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
            if isinstance(text, str) and name in _CHECKS:
                _CHECKS[name](text, *args, *options.values())
            return super().call(context, obj, *args, **options)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "%":
                _check_format(left, *(right if isinstance(right, tuple) else (right,)))
            elif _is_too_much(operator, left, right):
                raise OverflowError
            return super().call_binop(context, operator, left, right)

    sandbox = Sandbox(undefined=StrictUndefined, autoescape=False)  # prompts are text, not HTML
    for name, check in (("format", _check_format), ("center", _check_padding), ("indent", _check_padding)):
        sandbox.filters[name] = _guarded(check, sandbox.filters[name])
    return sandbox


def _guarded(check: Callable[..., None], act: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(text: Any, *args: Any, **options: Any) -> Any:
        check(text, *args, *options.values())
        return act(text, *args, **options)

    return guarded


def _check_padding(_text: Any, *widths: Any) -> None:
    """Refuse a width that nobody wants a text of."""
    if any(isinstance(each, int) and each > LONGEST_RESULT for each in widths):
        raise OverflowError


def _check_format(form: Any, *values: Any) -> None:
    """Refuse a format with such a width, or one that takes it from a value."""
    if not isinstance(form, str):
        return
    if _WIDE.search(form):
        raise OverflowError
    if _WIDTH_IS_GIVEN.search(form):
        _check_padding(form, *values)


def _is_too_much(operator: str, left: Any, right: Any) -> bool:
    if operator == "**":
        return (
            isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MOST_BITS
        )
    text, times = (left, right) if isinstance(right, int) else (right, left)
    if isinstance(text, str | bytes | list | tuple) and isinstance(times, int):
        return len(text) * times > LONGEST_RESULT
    return (
        isinstance(text, int)
        and isinstance(times, int)
        and text.bit_length() + times.bit_length() > _MOST_BITS
    )


_CHECKS: Mapping[str, Callable[..., None]] = {
    **dict.fromkeys(("format", "format_map"), _check_format),
    **dict.fromkeys(("ljust", "rjust", "center", "zfill", "expandtabs"), _check_padding),
}


def _line_of(error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return f"line {frames[-1].lineno} of the template" if frames else "the template"


def _hint(row: Mapping[str, Any]) -> str:
    # Only what looks like a name: the header of a file without a header is a row of text.
    names = [name for name in row if name.isidentifier()]
    return (
        f"; the row has {', '.join(names)}" if names else "; for a file without a header row give --columns"
    )
