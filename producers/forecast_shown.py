"""A forecast as people and programs see it: the lines of `estimate`, and the document of `estimate` and `submit`. Pure."""

from collections.abc import Iterator
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from producers.documents import figures
from producers.wording import duration, several
from promptmill.budgets import calls_covered, dollars
from promptmill.dimensions import DIMENSIONS, Dimension
from promptmill.experience import FIRST_GUESS, Basis
from promptmill.intake.forecast import Expected, Forecast
from promptmill.pricing import usd

if TYPE_CHECKING:
    from producers.forecast import Outlook
    from producers.forecast_time import Allowed, Binding

_DECIMALS = 4
_WIDTH = 80
_INDENT = " " * 10


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
                "cut_off": load.basis.cut,
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
        "budget_usd": usd(outlook.budget_nanos),
        "budget_covers": _covered(outlook),
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
    sides = forecast.low, forecast.expected, forecast.high
    models = ", ".join(
        model if len(outlook.found.models) == 1 else f"{model} ({count:,})"
        for model, count in outlook.found.models.items()
    )
    facts = [
        ("prompts", f"{forecast.jobs:,} for {models}" + (", simulated" if outlook.simulated else "")),
        ("input", _ranged(*(f"{each.input_tokens:,}" for each in sides), unit=" tokens")),
        ("output", _ranged(*(f"{each.output_tokens:,}" for each in sides), unit=" tokens")),
        ("cost", _cost(*sides)),
        *_budget(outlook),
        *_time(outlook),
        *(("rests on", rests_on(load.basis, group)) for group, load in forecast.loads.items()),
    ]
    return [line for name, fact in facts for line in _wrapped(f"{name:<9} {fact}")]


def rests_on(basis: Basis, group: str) -> str:
    """What figures rest on, as a phrase."""
    if basis.template:
        return f"the last {several(basis.template, 'answer')} with this template{_cut(basis.cut, basis.template)}"
    guess = f"a first guess of {FIRST_GUESS:.0f} tokens"
    if basis.model:
        return (
            f"no answers with this template yet: {several(basis.model, 'answer')} of {group} to other prompts"
            f"{_cut(basis.cut, basis.model)}"
        )
    return f"no answers yet: {guess}"


def _cut(cut: int, of: int) -> str:
    """What such answers say is a least, whatever the range says."""
    if not cut:
        return ""
    return f", {'all' if cut == of else f'{cut:,}'} of them cut off at max_tokens: with more room they are longer"


def _cost(low: Expected, expected: Expected, high: Expected) -> str:
    if expected.cost_nanos is None:
        return "unknown: there is no price for every model"
    return _ranged(*(f"${_dollars(each)}" for each in (low, expected, high)))


def _covered(outlook: "Outlook") -> dict[str, int] | None:
    """How many prompts the budget pays for, should they cost more than expected, as much, or less."""
    budget, forecast = outlook.budget_nanos, outlook.forecast
    costs = {"low": forecast.high, "expected": forecast.expected, "high": forecast.low}
    if budget is None:
        return None
    return {side: calls_covered(budget, each.cost_nanos or 0, forecast.jobs) for side, each in costs.items()}


def _budget(outlook: "Outlook") -> Iterator[tuple[str, str]]:
    covered, budget = _covered(outlook), outlook.budget_nanos
    if covered is None or budget is None:
        return
    if covered["low"] == outlook.forecast.jobs:
        yield "budget", f"{dollars(budget)}, enough for all prompts"
        return
    counts = _ranged(*(f"{covered[side]:,}" for side in ("low", "expected", "high")))
    yield "budget", f"{dollars(budget)}, enough for {counts} of {outlook.forecast.jobs:,} prompts"


def _ranged(low: str, expected: str, high: str, *, unit: str = "") -> str:
    """With the range, where there is one."""
    return f"{expected}{unit}" + ("" if low == high else f" ({low} to {high})")


def _wrapped(line: str) -> list[str]:
    return wrap(line, _WIDTH, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False)


def _dollars(expected: Expected) -> str:
    exact = usd(expected.cost_nanos) or "0"
    whole, _, rest = exact.partition(".")
    return f"{int(whole):,}.{rest[:_DECIMALS]}"


def _time(outlook: "Outlook") -> Iterator[tuple[str, str]]:
    unknown = [
        group for group, allowed in outlook.allowed.items() if allowed.unknown and not allowed.unlimited
    ]
    took = outlook.duration
    if took is None:
        yield "time", _no_time(outlook) if unknown else "no limit holds: as fast as Claude answers"
        return
    said = _ranged(duration(took.low), duration(took.expected), duration(took.high))
    yield "time", _certainty(outlook, took.group) + said
    yield "bound by", _bound(took.binding)
    for group in unknown:
        of = f" of {group}" if len(outlook.allowed) > 1 else ""
        yield "unknown", f"{_not_known(outlook.allowed[group], of)}, until the first reply"


def _no_time(outlook: "Outlook") -> str:
    if outlook.limiter:
        return "unknown until the first reply tells the limits"
    return (
        "unknown: no limiter runs here and no limit is set; "
        "set PROMPTMILL_RPM, PROMPTMILL_ITPM, PROMPTMILL_OTPM"
    )


def _certainty(outlook: "Outlook", slowest: str) -> str:
    """What an unknown limit makes of the time: others may be tighter, other accounts may carry more."""
    slower = any(allowed.may_be_slower for allowed in outlook.allowed.values())
    faster = outlook.allowed[slowest].may_be_faster
    if slower and faster:
        return "perhaps "
    return "at least " if slower else "at most " if faster else ""


def _bound(binding: "Binding") -> str:
    said = f"{_words(binding.dimension)}: {binding.limit:,.0f} a minute"
    if binding.account is not None:
        return f"{said} of account {binding.account}, which carries most"
    return f"{said} of {binding.accounts} accounts" if binding.accounts > 1 else said


def _not_known(allowed: "Allowed", of: str) -> str:
    *first, last = [_words(each) for each in allowed.unknown]
    names = f"{', '.join(first)} and {last}" if first else last
    some = f" ({allowed.learning} of {allowed.accounts} accounts)" if allowed.accounts > 1 else ""
    return f"the limit on {names}{of}{some}"


def _words(dimension: Dimension) -> str:
    return dimension.value.replace("_", " ")
