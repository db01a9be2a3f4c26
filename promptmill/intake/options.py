"""SubmitOptions: what a person says about a whole submission; what a row says itself wins over it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from promptmill.errors import InvalidInput
from promptmill.states import Lane

# Answers are billed by what is written, not by the ceiling, and thinking counts towards it.
DEFAULT_MAX_TOKENS = 4_096
CURRENT_API_VERSION = "2026-10-21"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """How rows become a batch.

    Attributes:
        model, max_tokens, system, params: fields of the request, for rows that do not bring their own.
        template: the text of a Jinja2 template that a row's fields fill in.
        columns: names for the fields of a CSV or TSV file without a header row.
        schema: JSON schema of the answer, sent as `output_config.format`.
        name: the batch's name; None for the source's name and a short hash of the content.
        new: make a second batch even when the same was submitted before.
        limit: only the first so many rows.
        skip_invalid: leave out rows with faults instead of refusing the whole.
        deadline: when unfinished jobs expire; aware.
        budget_nanos: nano-dollars.
        priority: a weight.
        notify_url: who is told when the batch ends or is paused by itself; checked by `webhooks.check_url`.
        given: variables that the template knows beside the fields of a row, which go first.
        extra: what workers must know, stored with the batch as it is.
        api_version: the `anthropic-version` that will be sent; it decides which parameters are refused.
    """

    model: str | None = None
    max_tokens: int | None = None
    system: str | Sequence[Mapping[str, Any]] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None
    columns: Sequence[str] | None = None
    schema: Mapping[str, Any] | None = None
    name: str | None = None
    new: bool = False
    limit: int | None = None
    skip_invalid: bool = False
    lane: Lane = Lane.REALTIME
    deadline: datetime | None = None
    budget_nanos: int | None = None
    priority: float = 1.0
    notify_url: str | None = field(default=None, repr=False)
    tags: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    api_version: str = CURRENT_API_VERSION

    def request_fields(self) -> dict[str, Any]:
        """The fields of a request that a row need not bring.

        Raises:
            InvalidInput: the schema is no JSON object schema.
        """
        fields: dict[str, Any] = {"max_tokens": DEFAULT_MAX_TOKENS, **self.params}
        named = {"model": self.model, "max_tokens": self.max_tokens, "system": self.system}
        fields |= {name: value for name, value in named.items() if value is not None}
        if self.schema is not None:
            if not isinstance(self.schema, Mapping) or "type" not in self.schema:
                raise InvalidInput("a JSON schema is an object with a type", field="schema")
            form = {"type": "json_schema", "schema": closed(self.schema)}
            fields["output_config"] = {**fields.get("output_config", {}), "format": form}
        return fields


def closed(schema: Any) -> Any:
    """The schema with `additionalProperties: false` in every object that does not say, which the API demands."""
    if isinstance(schema, Mapping):
        inner = {name: closed(value) for name, value in schema.items()}
        if inner.get("type") == "object":
            inner.setdefault("additionalProperties", False)
        return inner
    if isinstance(schema, list | tuple):
        return [closed(item) for item in schema]
    return schema
