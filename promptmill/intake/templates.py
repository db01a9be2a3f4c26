"""Templates: the fields of a row become the text of a prompt. Jinja2, in its sandbox.

The template is the user's, the values are data: what a value holds is never rendered again. An undefined
field is an error, because a prompt with a hole in it costs as much as a whole one.
"""

import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from promptmill.errors import InvalidInput

if TYPE_CHECKING:
    from jinja2 import Template as JinjaTemplate

# About a million tokens: more than any window holds.
LONGEST_RESULT = 8_000_000
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
        from jinja2 import StrictUndefined, TemplateSyntaxError  # noqa: PLC0415
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined,
            autoescape=False,  # prompts are text, not HTML
        )
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


def _line_of(error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return f"line {frames[-1].lineno} of the template" if frames else "the template"


def _hint(row: Mapping[str, Any]) -> str:
    # Only what looks like a name: the header of a file without a header is a row of text.
    names = [name for name in row if name.isidentifier()]
    return (
        f"; the row has {', '.join(names)}" if names else "; for a file without a header row give --columns"
    )
