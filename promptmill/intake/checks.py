"""What the API is certain to refuse, found before a million rows are submitted.

Only certainties: a parameter this release does not know is passed on, because the API gains new ones.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

from promptmill.catalogue import Catalogue, ModelFacts
from promptmill.errors import InvalidInput
from promptmill.states import Lane

_ROLES = frozenset({"user", "assistant", "system"})
_SAMPLING = ("temperature", "top_p", "top_k")
_NO_SAMPLING_SINCE = "2026-10-21"
# Not allowed inside a MessageBatch (claude-api.md, 7.1).
_NOT_IN_BULK = ("speed", "fallbacks", "thread")
# Fields beside the model on which the price depends, so that they are kept with the estimate.
_PRICED_BY = ("inference_geo", "speed")
# The estimate may be off; only what is beyond doubt is refused, the rest is the API's to judge.
_BEYOND_DOUBT = 1.1


class Checks:
    """The checks of one submission, with what does not change from row to row worked out once."""

    def __init__(self, catalogue: Catalogue, *, lane: Lane, api_version: str, today: date) -> None:
        self._catalogue = catalogue
        self._lane = lane
        self._refused = _SAMPLING if api_version >= _NO_SAMPLING_SINCE else ()
        self._api_version = api_version
        self._today = today
        self._models: dict[str, ModelFacts | InvalidInput] = {}

    def check_fields(self, body: Mapping[str, Any]) -> None:
        """Raise InvalidInput for a field, `messages` aside, that is there and will be refused."""
        for name in self._refused:
            if name in body:
                raise InvalidInput(
                    f"removed in API version {self._api_version}, even at its default; leave it out",
                    field=name,
                )
        if body.get("stream"):
            raise InvalidInput("answers are stored whole, streamed or not; leave it out", field="stream")
        if self._lane is Lane.BULK:
            self._check_bulk(body)
        if not isinstance(body.get("system", ""), str | list):
            raise InvalidInput("neither text nor a list of blocks", field="system")
        for name in _PRICED_BY:
            if body.get(name) is not None:
                _check_word(body[name], name)
        if "model" in body:
            facts = self._model(body["model"])
            if "max_tokens" in body:
                _check_ceiling(body["max_tokens"], facts)

    def check(self, body: Mapping[str, Any]) -> ModelFacts:
        """The facts of the model of a whole request.

        Raises:
            InvalidInput: a field is missing or will be refused.
        """
        if "model" not in body:
            raise InvalidInput("missing; give it in the row or for all with --model", field="model")
        self.check_fields(body)
        _check_messages(body.get("messages"))
        return self._model(body["model"])

    def _check_bulk(self, body: Mapping[str, Any]) -> None:
        for name in _NOT_IN_BULK:
            if name in body:
                raise InvalidInput("not possible in the bulk lane", field=name)
        if body.get("max_tokens") == 0:
            raise InvalidInput("0 is not possible in the bulk lane", field="max_tokens")

    def _model(self, name: Any) -> ModelFacts:
        if not isinstance(name, str):
            raise InvalidInput("not text", field="model")
        found = self._models.get(name)
        if found is None:
            found = self._models[name] = self._judge(name)
        if isinstance(found, InvalidInput):
            raise InvalidInput(found.why, field="model")
        return found

    def _judge(self, name: str) -> ModelFacts | InvalidInput:
        facts = self._catalogue.find_model(name)
        if facts is not None and not facts.is_retired(self._today):
            return facts
        near = self._catalogue.near(name, self._today)
        advice = f"; did you mean {' or '.join(near)}?" if near else ""
        if facts is None:
            return InvalidInput(
                f"unknown model {name[:64]!r}{advice} (a new one goes into [models] of the settings)"
            )
        return InvalidInput(f"{name} was retired on {facts.retires_on}{advice}")


def check_window(estimated_tokens: int, facts: ModelFacts) -> None:
    """Raise InvalidInput when a prompt is certainly longer than the model's window."""
    if estimated_tokens > facts.context_window * _BEYOND_DOUBT:
        raise InvalidInput(
            f"about {estimated_tokens:,} tokens; {facts.id} reads {facts.context_window:,} at most",
            field="messages",
        )


def _check_word(value: Any, field: str) -> None:
    if not isinstance(value, str):
        raise InvalidInput("not text", field=field)
    if not value.isprintable():  # half a surrogate pair is not either
        raise InvalidInput("has characters that no word has", field=field)


def _check_ceiling(value: Any, facts: ModelFacts) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput("must be a whole number of tokens", field="max_tokens")
    if value > facts.max_output_tokens:
        raise InvalidInput(
            f"{value:,} is above the {facts.max_output_tokens:,} of {facts.id}", field="max_tokens"
        )


def _check_messages(messages: Any) -> None:
    if messages is None:
        raise InvalidInput("missing", field="messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidInput("must be a list with at least one message", field="messages")
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise InvalidInput("not an object", field=f"messages[{place}]")
        if message.get("role") not in _ROLES:
            raise InvalidInput("must be user, assistant or system", field=f"messages[{place}].role")
        content = message.get("content")
        if not isinstance(content, str | list):
            raise InvalidInput("neither text nor a list of blocks", field=f"messages[{place}].content")
        if not content or (isinstance(content, str) and not content.strip()):
            raise InvalidInput("is empty", field=f"messages[{place}].content")
