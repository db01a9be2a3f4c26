"""Scenario files: what goes wrong, when, and for whom. TOML, every field checked, faults seeded.

    # rough-day.toml
    [simulator]                      # optional: any field of SimulatorConfig that was left at its default
    rpm = 300

    [organizations]                  # optional: keys that share one account; others have one each
    acme = ["sk-ant-one", "sk-ant-two"]

    [[fault]]
    kind = "overloaded"              # what happens, see the table
    probability = 0.3                # when: every condition given must hold
    from_s = 60                      # seconds since the start or the last reset
    until_s = 90

    [[fault]]
    kind = "cut"
    nth = [3, 10]                    # of the requests that meet the other conditions, counted from 1
    after = 0.5                      # how: half of the answer is sent

    [[tenant]]                       # somebody else in the same organization
    share = 0.3                      # of every limit
    from_s = 120

    [[limits]]                       # the account's limits change
    at_s = 300
    rpm = 200

Conditions: `probability`, `nth`, `every`, `attempts` (only while the same prompt has arrived at most so often),
`times` (at most so often in all), `from_s`, `until_s`, `model` (with wildcards), `text` (in the prompt), `stream`,
`organization`, `after_usd` (once the organization was billed so much). The first fault that applies is the one
that happens. Chance is a hash of seed, fault, prompt and its occurrence: the same requests meet the same fate,
in whatever order they come.

| kind | what the client sees | its own fields |
| --- | --- | --- |
| rate_limited | 429 | retry_after_s, dimension, ramp |
| overloaded | 529 | retry_after_s |
| server_error | 500 or `status` | status, html, retry_after_s |
| reset | connection reset, nothing done | |
| hang | nothing for `pause_s`, then a reset | pause_s |
| outage | every endpoint fails; `mode` reset, unavailable (503) or hang | mode, pause_s |
| spend_cap | 429, 400 or 402; `form` enforced, contract, organization, workspace, billing | form |
| key_revoked | 401 on every endpoint | |
| forbidden | 403 | |
| lost_reply | reset after the answer was made: billed, never seen | |
| cut | the answer ends after the share `after`; `how` clean or reset | after, how |
| stream_error | an `error` event in the stream | after, error_type |
| stall | nothing for `pause_s` in the middle | after, pause_s |
| slow_drip | `piece_bytes` bytes every `pause_s`, cut anywhere | piece_bytes, pause_s |
| malformed_event | an event whose JSON breaks off | after |
| unknown_event | an event nobody has heard of | after |
| hold | nothing until the scenario is replaced or set back; then the answer, as if there were no fault | |
| answer | a chosen reply, length, stop reason | reply, stop_reason, category, output_tokens |

The first nine refuse and bill nothing. stream_error, malformed_event and unknown_event meet streamed requests only.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from promptmill.errors import ConfigurationError, InvalidInput
from promptmill.simulator.config import SimulatorConfig

AT_THE_DOOR = frozenset({"outage", "key_revoked"})
REFUSING = frozenset(
    {"rate_limited", "overloaded", "server_error", "reset", "hang", "spend_cap", "forbidden"}
)
STREAMED_ONLY = frozenset({"stream_error", "malformed_event", "unknown_event"})

_CONDITIONS = frozenset(
    {
        "probability",
        "nth",
        "every",
        "attempts",
        "times",
        "from_s",
        "until_s",
        "model",
        "text",
        "stream",
        "organization",
        "after_usd",
    }
)
# At the door there is no prompt yet.
_DOOR_CONDITIONS = frozenset({"from_s", "until_s", "organization", "after_usd"})
_OWN_FIELDS: dict[str, frozenset[str]] = {
    "rate_limited": frozenset({"retry_after_s", "dimension", "ramp"}),
    "overloaded": frozenset({"retry_after_s"}),
    "server_error": frozenset({"status", "html", "retry_after_s"}),
    "reset": frozenset(),
    "hang": frozenset({"pause_s"}),
    "outage": frozenset({"mode", "pause_s"}),
    "spend_cap": frozenset({"form"}),
    "key_revoked": frozenset(),
    "forbidden": frozenset(),
    "lost_reply": frozenset(),
    "cut": frozenset({"after", "how"}),
    "stream_error": frozenset({"after", "error_type"}),
    "stall": frozenset({"after", "pause_s"}),
    "slow_drip": frozenset({"piece_bytes", "pause_s"}),
    "malformed_event": frozenset({"after"}),
    "unknown_event": frozenset({"after"}),
    "hold": frozenset(),
    "answer": frozenset({"reply", "stop_reason", "category", "output_tokens"}),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "dimension": ("requests", "input_tokens", "output_tokens"),
    "mode": ("reset", "unavailable", "hang"),
    "form": ("enforced", "contract", "organization", "workspace", "billing"),
    "how": ("clean", "reset"),
}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "probability": (int, float),
    "every": int,
    "attempts": int,
    "times": int,
    "from_s": (int, float),
    "until_s": (int, float),
    "model": str,
    "text": str,
    "stream": bool,
    "organization": str,
    "after_usd": (int, float),
    "retry_after_s": int,
    "ramp": bool,
    "status": int,
    "html": bool,
    "pause_s": (int, float),
    "after": (int, float),
    "error_type": str,
    "piece_bytes": int,
    "reply": str,
    "stop_reason": str,
    "category": str,
    "output_tokens": int,
}
_SHARES = frozenset({"probability", "after"})
_FROM_ONE = frozenset({"every", "attempts", "times", "piece_bytes", "output_tokens"})
_LEAST_ERROR, _MOST_ERROR = 400, 599

_Entry = TypeVar("_Entry", "TenantSpan", "LimitChange")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One `[[fault]]`: its conditions and what happens; the module docstring says what each field means."""

    kind: str
    probability: float = 1.0
    nth: tuple[int, ...] = ()
    every: int | None = None
    attempts: int | None = None
    times: int | None = None
    from_s: float = 0.0
    until_s: float | None = None
    model: str | None = None
    text: str | None = None
    stream: bool | None = None
    organization: str | None = None
    after_usd: float | None = None
    retry_after_s: int | None = None
    dimension: str | None = None
    ramp: bool = False
    status: int = 500
    html: bool = False
    pause_s: float = 1.0
    mode: str = "reset"
    form: str = "enforced"
    after: float = 0.5
    how: str = "clean"
    error_type: str = "overloaded_error"
    piece_bytes: int = 7
    reply: str | None = None
    stop_reason: str | None = None
    category: str | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSpan:
    """Another tenant of every organization takes `share` of its limits for a while."""

    share: float
    from_s: float = 0.0
    until_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChange:
    """From `at_s` on other limits hold; None leaves one as it is."""

    at_s: float
    rpm: float | None = None
    itpm: float | None = None
    otpm: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything a scenario file says, beside the settings it brings along."""

    faults: tuple[Fault, ...] = ()
    tenants: tuple[TenantSpan, ...] = ()
    changes: tuple[LimitChange, ...] = ()


def read_scenario(path: str | Path) -> tuple[Scenario, dict[str, Any]]:
    """A scenario file, and the settings in it.

    Raises:
        InvalidInput: names the file and the field at fault.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(error.strerror or "cannot be read", file=path) from error
    except UnicodeDecodeError as error:
        raise InvalidInput("is not UTF-8 text", file=path) from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"is not TOML: {error}", file=path) from error
    return parse_scenario(tables, file=path)


def parse_scenario(
    tables: Mapping[str, Any], *, file: str | Path | None = None
) -> tuple[Scenario, dict[str, Any]]:
    """A scenario from its tables, and the settings among them.

    Raises:
        InvalidInput: names the field at fault.
    """
    known = {"simulator", "organizations", "fault", "tenant", "limits"}
    if strange := sorted(set(tables) - known):
        raise InvalidInput("is no table of a scenario", file=file, field=strange[0])
    settings = dict(_table(tables, "simulator", file))
    if "organizations" in tables:
        settings["organizations"] = _table(tables, "organizations", file)
    scenario = Scenario(
        faults=tuple(
            _read_fault(each, f"fault {number}", file) for number, each in _entries(tables, "fault", file)
        ),
        tenants=tuple(
            _read_tenant(each, f"tenant {number}", file) for number, each in _entries(tables, "tenant", file)
        ),
        changes=tuple(
            _read_plain(LimitChange, each, f"limits {number}", file)
            for number, each in _entries(tables, "limits", file)
        ),
    )
    return scenario, settings


def apply_scenario(config: SimulatorConfig) -> tuple[SimulatorConfig, Scenario]:
    """The scenario that a configuration names, and the configuration with the scenario's settings filled in.

    A setting given elsewhere wins over the scenario file's.

    Raises:
        InvalidInput: the file is at fault.
    """
    scenario, settings = read_scenario(config.scenario) if config.scenario else (Scenario(), {})
    if config.faults:
        own = parse_scenario({"fault": list(config.faults)})[0]
        scenario = replace(scenario, faults=own.faults + scenario.faults)
    defaults = SimulatorConfig()
    try:
        stated = SimulatorConfig.from_json(settings)
    except (ConfigurationError, TypeError) as error:
        field = getattr(error, "setting", None)
        raise InvalidInput(str(error), file=config.scenario, field=f"simulator.{field}") from error
    filled = {
        name: getattr(stated, name) for name in settings if getattr(config, name) == getattr(defaults, name)
    }
    return replace(config, **filled), scenario


def _read_fault(entry: Mapping[str, Any], place: str, file: str | Path | None) -> Fault:
    kind = entry.get("kind")
    if kind not in _OWN_FIELDS:
        known = ", ".join(_OWN_FIELDS)
        raise InvalidInput(f"must be one of {known}, not {kind!r}", file=file, field=f"{place}: kind")
    conditions = _DOOR_CONDITIONS if kind in AT_THE_DOOR else _CONDITIONS
    allowed = conditions | _OWN_FIELDS[kind] | {"kind"}
    for name, value in entry.items():
        if name not in allowed:
            raise InvalidInput(f"is not a field of {kind}", file=file, field=f"{place}: {name}")
        if why := _fault_in(name, value):
            raise InvalidInput(why, file=file, field=f"{place}: {name}")
    values = dict(entry)
    if "nth" in values:
        values["nth"] = (values["nth"],) if isinstance(values["nth"], int) else tuple(values["nth"])
    return Fault(**values)


def _fault_in(name: str, value: Any) -> str | None:
    """Why a value cannot be taken; None when it can."""
    if name == "nth":
        numbers = value if isinstance(value, list) else [value]
        fine = numbers and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers)
        return None if fine else "must be a number from 1 on, or a list of them"
    if name in _CHOICES:
        return (
            None if value in _CHOICES[name] else f"must be one of {', '.join(_CHOICES[name])}, not {value!r}"
        )
    wanted = _TYPES.get(name, object)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        return f"has the wrong type: {value!r}"
    return _out_of_range(name, value) if isinstance(value, int | float) else None


def _out_of_range(name: str, value: float) -> str | None:
    if name in _SHARES and value > 1:
        return f"must be from 0 to 1, not {value!r}"
    if name == "status" and not _LEAST_ERROR <= value <= _MOST_ERROR:
        return f"must be an HTTP error status, not {value!r}"
    least = 1 if name in _FROM_ONE else 0
    return None if value >= least else f"must be at least {least}, not {value!r}"


def _read_tenant(entry: Mapping[str, Any], place: str, file: str | Path | None) -> TenantSpan:
    tenant = _read_plain(TenantSpan, entry, place, file)
    if not 0 < tenant.share < 1:
        raise InvalidInput("must be above 0 and below 1", file=file, field=f"{place}: share")
    return tenant


def _read_plain(kind: type[_Entry], entry: Mapping[str, Any], place: str, file: str | Path | None) -> _Entry:
    names = {each.name for each in fields(kind)}
    for name, value in entry.items():
        if name not in names:
            raise InvalidInput("is not a field of this table", file=file, field=f"{place}: {name}")
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise InvalidInput(
                f"must be a number of at least 0, not {value!r}", file=file, field=f"{place}: {name}"
            )
    first = fields(kind)[0].name
    if first not in entry:
        raise InvalidInput("is missing", file=file, field=f"{place}: {first}")
    return kind(**entry)


def _entries(
    tables: Mapping[str, Any], name: str, file: str | Path | None
) -> Sequence[tuple[int, Mapping[str, Any]]]:
    entries = tables.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise InvalidInput(f"must be written as [[{name}]]", file=file, field=name)
    return list(enumerate(entries, start=1))


def _table(tables: Mapping[str, Any], name: str, file: str | Path | None) -> Mapping[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, Mapping):
        raise InvalidInput(f"must be written as [{name}]", file=file, field=name)
    return table
