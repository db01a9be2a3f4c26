"""One row becomes a request: Anthropic's batch line, OpenAI's, or a plain object; decided row by row.

- `{"custom_id", "params": {…}}`: passed through unchanged.
- `{"custom_id", "method", "url", "body": {…}}`: translated, see `openai`.
- any other object: its fields feed the template; without one, `prompt` or `messages` is asked, and fields
  that bear the name of a request field (`model`, `max_tokens`, `system` …) are that.

Nothing is dropped: what is not part of the request is kept as the row's `source` and comes back with the
result. What was most likely meant for the request and is not part of it (`temprature`, a `prompt` beside
`messages`) is a fault.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptmill.catalogue import Catalogue
from promptmill.errors import InvalidInput
from promptmill.intake.fieldnames import HARMLESS, REQUEST_FIELDS, ROW_FIELDS, refuse_slips
from promptmill.intake.openai import is_openai_line, translate
from promptmill.intake.options import SubmitOptions
from promptmill.intake.templates import Template
from promptmill.intake.values import plain
from promptmill.prompts import Prompt

_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_OPENAI_FIELDS = frozenset({"custom_id", "method", "url", "body"})
_ANTHROPIC_FIELDS = frozenset({"custom_id", "params"})
_PROMPT = frozenset({"prompt"})
_QUESTIONS = _PROMPT | {"messages"}
_OF_PARAMS = REQUEST_FIELDS - HARMLESS - _QUESTIONS


@dataclass(frozen=True, slots=True)
class Draft:
    """A row as a request: `own` goes over the fields that all rows share; nothing is validated yet."""

    custom_id: str | None
    own: dict[str, Any]
    source: Mapping[str, Any] | None


class LineReader:
    """Turns rows into drafts under the options of one submission."""

    def __init__(self, options: SubmitOptions, catalogue: Catalogue) -> None:
        has_template = options.template is not None
        self._template = Template(options.template or "", options.given) if has_template else None
        self._replaces_models = options.model is not None
        self._catalogue = catalogue

    def read(self, row: Any) -> Draft:
        """The draft of one row.

        Raises:
            InvalidInput: the row is at fault; `field` names where, the caller knows the line.
        """
        if isinstance(row, InvalidInput):
            raise row
        if isinstance(row, Prompt):
            return Draft(None, _passed_on(row.body), None)
        if isinstance(row, str):
            row = {"prompt": row}
        if not isinstance(row, Mapping):
            raise InvalidInput("not an object")
        custom_id = _custom_id(row)
        if self._template is None:
            _refuse_what_is_not_read(row)
        if _is_anthropic_line(row):
            return Draft(custom_id, _passed_on(row["params"]), _rest(row, _ANTHROPIC_FIELDS))
        if is_openai_line(row):
            return Draft(custom_id, self._translated(row), _rest(row, _OPENAI_FIELDS))
        return Draft(custom_id, self._asked(row), plain(row))

    def _translated(self, row: Mapping[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = plain(translate(row))
        # Their models are not ours: the batch's own stands in, unless the line names a Claude model already.
        if self._replaces_models and self._catalogue.find_model(str(body.get("model"))) is None:
            body.pop("model", None)
        return body

    def _asked(self, row: Mapping[str, Any]) -> dict[str, Any]:
        if self._template is not None:
            return _question(self._template.render(row), "template")
        own = {name: plain(row[name]) for name in row if name in REQUEST_FIELDS}
        if own.get("messages") is not None or ("messages" in own and row.get("prompt") is None):
            return own
        if "prompt" not in row:
            raise InvalidInput(
                "the row has neither `prompt` nor `messages`, and no template was given", field="prompt"
            )
        if isinstance(ceiling := own.get("max_tokens"), str) and ceiling.isdecimal():
            own["max_tokens"] = int(ceiling)  # text files know no numbers
        return own | _question(plain(row["prompt"]), "prompt")


def _refuse_what_is_not_read(row: Mapping[str, Any]) -> None:
    """Raise InvalidInput for a field that was meant for the request, and would be kept as data instead."""
    refuse_slips(row, ROW_FIELDS, or_else="call data of your own something less alike")
    params = row.get("params")
    if isinstance(params, Mapping) and ("custom_id" in row or not REQUEST_FIELDS.isdisjoint(params)):
        if misplaced := [name for name in row if name in _OF_PARAMS and name not in params]:
            raise InvalidInput("not read beside `params`; put it into them", field=misplaced[0])
        whole, unread = "params", _QUESTIONS
    elif is_openai_line(row):
        whole, unread = "body", _QUESTIONS
    else:
        whole, unread = "messages", _PROMPT
    if row.get(whole) is None:  # a gap in a table
        return
    if beside := [name for name in row if name in unread and row[name] is not None]:
        raise InvalidInput(f"stands beside `{whole}`, and only one of them is read", field=beside[0])


def _question(content: Any, field: str) -> dict[str, Any]:
    if not isinstance(content, str | list):
        raise InvalidInput("neither text nor a list of blocks", field=field)
    if not content or (isinstance(content, str) and not content.strip()):
        raise InvalidInput("is empty", field=field)
    return {"messages": [{"role": "user", "content": content}]}


def _passed_on(params: Mapping[str, Any]) -> dict[str, Any]:
    refuse_slips(params, REQUEST_FIELDS)
    body: dict[str, Any] = plain(params)
    # A body says nothing of streaming: the client decides that call by call.
    if body.get("stream", True) is False:
        del body["stream"]
    return body


def _custom_id(row: Mapping[str, Any]) -> str | None:
    given = row.get("custom_id")
    if given is None or given == "":
        return None
    if isinstance(given, float) and given.is_integer():
        given = int(given)  # frames make floats of whole numbers where a column has gaps
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or not _CUSTOM_ID.fullmatch(given):
        raise InvalidInput("must be 1 to 64 of the characters a-z A-Z 0-9 _ -", field="custom_id")
    return given


def _rest(row: Mapping[str, Any], taken: frozenset[str]) -> Mapping[str, Any] | None:
    rest = {name: plain(value) for name, value in row.items() if name not in taken}
    return rest or None


def _is_anthropic_line(row: Mapping[str, Any]) -> bool:
    """Theirs always has a custom_id; one without gets its default, as any other row does."""
    params = row.get("params")
    return isinstance(params, Mapping) and ("custom_id" in row or "messages" in params)
