"""What each model accepts and how it is listed: the server's side of the catalogue.

Windows, groups and lifecycle come from `promptmill.catalogue`; here are the rules a request is refused by
(claude-api.md, 1.3, 2.1, 2.3, 4.3, 9.4) and the release dates that the models endpoint shows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from promptmill.catalogue import Catalogue, ModelFacts

ALL_EFFORTS = ("low", "medium", "high", "xhigh", "max")
THINKING_TYPES = ("adaptive", "between_tools", "disabled", "enabled")
_LINES = ("haiku", "sonnet", "opus", "fable", "mythos")
_EPOCH = date(1970, 1, 1)

# Released on; claude-api.md, 9.1.
_RELEASED: dict[str, date] = {
    "claude-fable-5-2": date(2026, 11, 9),
    "claude-mythos-5-2": date(2026, 11, 9),
    "claude-haiku-5-5": date(2026, 10, 7),
    "claude-sonnet-5-5": date(2026, 9, 28),
    "claude-opus-5-5": date(2026, 9, 22),
    "claude-fable-5-1": date(2026, 9, 1),
    "claude-mythos-5-1": date(2026, 9, 1),
    "claude-opus-5": date(2026, 7, 24),
    "claude-sonnet-5": date(2026, 6, 30),
    "claude-fable-5": date(2026, 6, 9),
    "claude-mythos-5": date(2026, 6, 9),
    "claude-opus-4-8": date(2026, 5, 28),
    "claude-opus-4-7": date(2026, 4, 16),
    "claude-sonnet-4-6": date(2026, 2, 17),
    "claude-opus-4-6": date(2026, 2, 5),
    "claude-opus-4-5-20251101": date(2025, 11, 24),
    "claude-haiku-4-5-20251001": date(2025, 10, 15),
    "claude-sonnet-4-5-20250929": date(2025, 9, 29),
}
_DEPRECATED: dict[str, date] = {"claude-sonnet-4-5-20250929": date(2026, 9, 30)}

_4_5 = frozenset({"claude-opus-4-5-20251101", "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001"})
_4_6 = frozenset({"claude-opus-4-6", "claude-sonnet-4-6"})
_ALWAYS_THINKING = ("claude-fable-", "claude-mythos-")
_REFUSED_THINKING: dict[str, frozenset[str]] = {
    "claude-opus-5-5": frozenset({"enabled", "disabled"}),
    "claude-sonnet-5-5": frozenset({"enabled", "disabled"}),
    "claude-opus-4-6": frozenset(),
    "claude-sonnet-4-6": frozenset(),
    **dict.fromkeys(_4_5, frozenset({"adaptive", "between_tools"})),
}
_UNFORCED_TOOLS = frozenset(
    {
        "claude-fable-5-1",
        "claude-fable-5-2",
        "claude-mythos-5-1",
        "claude-mythos-5-2",
        "claude-opus-5-5",
        "claude-sonnet-5-5",
    }
)
_MEDIUM_EFFORT = frozenset({"claude-opus-5-5", "claude-haiku-5-5"})
# `beta`: only with the beta header; `ignored`: runs at standard speed (claude-api.md, 9.4).
_FAST: dict[str, str] = {
    "claude-fable-5-2": "yes",
    "claude-mythos-5-2": "yes",
    "claude-opus-5-5": "yes",
    "claude-opus-5": "beta",
    "claude-opus-4-8": "beta",
    "claude-opus-4-6": "ignored",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One model as this server treats it.

    Attributes:
        facts: windows, group, lifecycle.
        refused_thinking: values of `thinking.type` that get a 400.
        efforts: accepted values of `output_config.effort`; empty where the parameter is an error.
        default_effort: what holds when the request does not say.
        forces_tools: False where `tool_choice` `any` and `tool` are refused.
        continues_prefill: True where the last message may be the assistant's.
        takes_sampling: True where `temperature` and its kin may differ from their defaults under 2023-06-01.
        takes_geo: True where `inference_geo` is accepted.
        fast: `yes`, `beta`, `ignored` or `no`.
        token_factor: `SimulatorConfig.token_factor`.
    """

    facts: ModelFacts
    refused_thinking: frozenset[str]
    efforts: tuple[str, ...]
    default_effort: str
    forces_tools: bool
    continues_prefill: bool
    takes_sampling: bool
    takes_geo: bool
    fast: str
    token_factor: float = 1.0

    @property
    def line(self) -> str | None:
        """The family name inside the id."""
        return next((line for line in _LINES if line in self.facts.id), None)

    def lifecycle(self, on: date) -> str:
        """`active`, `deprecated` or `retired` on a day."""
        if self.facts.is_retired(on):
            return "retired"
        deprecated = _DEPRECATED.get(self.facts.id)
        return "deprecated" if deprecated is not None and on >= deprecated else "active"

    def info(self, on: date) -> dict[str, Any]:
        """The ModelInfo object of the models endpoint (claude-api.md, 10)."""
        facts = self.facts
        deprecated, retires = _DEPRECATED.get(facts.id), facts.retires_on
        return {
            "type": "model",
            "id": facts.id,
            "display_name": _display_name(facts.id),
            "created_at": _midnight(_RELEASED.get(facts.id, _EPOCH)),
            "max_input_tokens": facts.context_window,
            "max_tokens": facts.max_output_tokens,
            "lifecycle": self.lifecycle(on),
            "deprecated_at": _midnight(deprecated) if deprecated and on >= deprecated else None,
            "retires_at": _midnight(retires) if retires else None,
            "line": self.line,
            "capabilities": self._capabilities(),
        }

    def _capabilities(self) -> dict[str, Any]:
        yes = {"supported": True}
        return {
            "batch": yes,
            "citations": yes,
            "code_execution": yes,
            "context_management": yes,
            "effort": {
                "supported": bool(self.efforts),
                **{effort: {"supported": effort in self.efforts} for effort in ALL_EFFORTS},
            },
            "image_input": yes,
            "pdf_input": yes,
            "server_tools": {"supported": False, "code_execution": _no(), "web_search": _no()},
            "structured_outputs": yes,
            "thinking": {
                "supported": True,
                "types": {each: {"supported": each not in self.refused_thinking} for each in THINKING_TYPES},
            },
        }


class Menu:
    """The models on offer, by every name they have.

    Args:
        extra: models beyond the published ones, as `catalogue.Catalogue` takes them.
        token_factor: `SimulatorConfig.token_factor`.
    """

    def __init__(
        self, extra: Mapping[str, Mapping[str, Any]] | None = None, token_factor: float = 1.0
    ) -> None:
        self.catalogue = Catalogue(extra)
        self._by_name: dict[str, ServedModel] = {}
        for facts in self.catalogue.models():
            served = _serve(facts, token_factor)
            for name in (facts.id, *facts.aliases):
                self._by_name[name] = served

    def find(self, name: str) -> ServedModel | None:
        """The model of that id or alias, retired or not."""
        return self._by_name.get(name)

    def all(self) -> list[ServedModel]:
        """Every model, newest first."""
        distinct = {served.facts.id: served for served in self._by_name.values()}
        return sorted(distinct.values(), key=_newest_first)

    def in_group(self, group: str, on: date) -> list[str]:
        """Ids and aliases of the living models of a rate-limit group."""
        return sorted(
            name
            for name, served in self._by_name.items()
            if served.facts.group == group and not served.facts.is_retired(on)
        )

    def groups(self, on: date) -> Iterable[str]:
        """The rate-limit groups that have a living model."""
        return dict.fromkeys(m.facts.group for m in self.all() if not m.facts.is_retired(on))


def _serve(facts: ModelFacts, token_factor: float) -> ServedModel:
    model = facts.id
    old = model in _4_5 or model.startswith(("claude-2", "claude-3", "claude-instant"))
    refused = _REFUSED_THINKING.get(model, frozenset({"enabled"}))
    if model.startswith(_ALWAYS_THINKING):
        refused = frozenset({"enabled", "disabled"})
    efforts = tuple(effort for effort in ALL_EFFORTS if effort != "xhigh" or not (old or model in _4_6))
    return ServedModel(
        facts=facts,
        refused_thinking=refused,
        efforts=efforts if facts.takes_effort else (),
        default_effort="medium" if model in _MEDIUM_EFFORT else "high",
        forces_tools=model not in _UNFORCED_TOOLS,
        continues_prefill=old,
        takes_sampling=old or model in _4_6,
        takes_geo=not old,
        fast=_FAST.get(model, "no"),
        token_factor=token_factor,
    )


def _newest_first(served: ServedModel) -> tuple[int, str]:
    return (-_RELEASED.get(served.facts.id, _EPOCH).toordinal(), served.facts.id)


def _display_name(model: str) -> str:
    words = [word for word in model.split("-") if not (word.isdigit() and len(word) == len("20251101"))]
    numbers = [word for word in words if word[0].isdigit()]
    names = [word.capitalize() for word in words if not word[0].isdigit()]
    return " ".join([*names, ".".join(numbers)]).strip()


def _midnight(day: date) -> str:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).isoformat().replace("+00:00", "Z")


def _no() -> dict[str, bool]:
    return {"supported": False}
