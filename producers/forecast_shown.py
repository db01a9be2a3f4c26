"""A forecast as people and programs see it: the lines of `estimate`, and the document of `estimate` and `submit`. Pure."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from producers.documents import figures
from producers.wording import duration, several
from promptmill.dimensions import DIMENSIONS
from promptmill.experience import FIRST_GUESS, Basis
from promptmill.intake.forecast import Expected, Forecast
from promptmill.pricing import usd

if TYPE_CHECKING:
    from producers.forecast import Allowed, Outlook

_DECIMALS = 4


def forecast_document(forecast: Forecast) -> dict[str, Any]:
    """What is expected, the interval, and what it rests on."""
    return {
        **figures(forecast.expected),
        "low": figures(forecast.low),
        "high": figures(forecast.high),
        "rests_on": [
            {
                "model_group": group,
                "template_answers": load.basis.template,
                "model_answers": load.basis.model,
                "text": rests_on(load.basis, group),
            }
            for group, load in forecast.loads.items()
        ],
    }


def outlook_document(outlook: "Outlook") -> dict[str, Any]:
    """Everything `estimate --json` prints."""
    took = outlook.duration
    return {
        "name": outlook.found.name,
        "jobs": outlook.forecast.jobs,
        "models": dict(outlook.found.models),
        "simulated": outlook.simulated,
        "estimate": forecast_document(outlook.forecast),
        "duration_s": took and {side: round(getattr(took, side), 1) for side in ("low", "expected", "high")},
        "bound_by": took and took.bound_by.value,
        "limits": [
            {
                "model_group": group,
                "accounts": allowed.accounts,
                **{each.value: allowed.limits.get(each) for each in DIMENSIONS},
                "unknown": [each.value for each in allowed.unknown],
            }
            for group, allowed in outlook.allowed.items()
        ],
        "notices": list(outlook.notices),
    }


def outlook_lines(outlook: "Outlook") -> list[str]:
    """The same for people."""
    forecast = outlook.forecast
    low, expected, high = forecast.low, forecast.expected, forecast.high
    models = ", ".join(
        model if len(outlook.found.models) == 1 else f"{model} ({count:,})"
        for model, count in outlook.found.models.items()
    )
    facts = [
        ("prompts", f"{forecast.jobs:,} for {models}" + (", simulated" if outlook.simulated else "")),
        ("input", f"{expected.input_tokens:,} tokens ({low.input_tokens:,} to {high.input_tokens:,})"),
        ("output", f"{expected.output_tokens:,} tokens ({low.output_tokens:,} to {high.output_tokens:,})"),
        ("cost", _cost(low, expected, high)),
        ("time", _time(outlook)),
        *(("rests on", rests_on(load.basis, group)) for group, load in forecast.loads.items()),
    ]
    return [f"{name:<9} {fact}" for name, fact in facts]


def rests_on(basis: Basis, group: str) -> str:
    """What figures rest on, as a phrase."""
    if basis.template:
        return f"the last {several(basis.template, 'answer')} with this template"
    guess = f"a first guess of {FIRST_GUESS:.0f} tokens"
    if basis.model:
        return (
            f"no answers with this template yet: {several(basis.model, 'answer')} of {group} to other prompts"
        )
    return f"no answers yet: {guess}"


def _cost(low: Expected, expected: Expected, high: Expected) -> str:
    if expected.cost_nanos is None:
        return "unknown: there is no price for every model"
    return f"${_dollars(expected)} (${_dollars(low)} to ${_dollars(high)})"


def _dollars(expected: Expected) -> str:
    exact = usd(expected.cost_nanos) or "0"
    whole, _, rest = exact.partition(".")
    return f"{int(whole):,}.{rest[:_DECIMALS]}"


def _time(outlook: "Outlook") -> str:
    unknown = [group for group, allowed in outlook.allowed.items() if allowed.unknown]
    took = outlook.duration
    if took is None:
        if unknown:
            return "unknown until the first reply tells the limits"
        return "no limit holds: as fast as Claude answers"
    binding = took.bound_by.value.replace("_", " ")
    limit = outlook.allowed[took.group].limits[took.bound_by] or 0
    said = f"{duration(took.expected)} ({duration(took.low)} to {duration(took.high)}), bound by {binding}"
    return f"{said}: {limit:,.0f} a minute" + "".join(_not_known(outlook.allowed[took.group]))


def _not_known(allowed: "Allowed") -> Iterator[str]:
    if allowed.accounts > 1:
        yield f" of {allowed.accounts} accounts"
    if allowed.unknown:
        names = " and ".join(each.value.replace("_", " ") for each in allowed.unknown)
        yield f"; the limit on {names} is unknown until the first reply"
