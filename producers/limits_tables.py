"""The limits as a page for people, 80 columns wide: one block for each pool in use, one line for each other. Pure."""

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from producers.limits_now import Backlog, LimitsNow, SetLimits
from producers.limits_probe import Probe, StatedLimits
from producers.limits_wording import FROM, allowed, share, waiting, why
from producers.tables import columns
from producers.wording import several
from promptmill.dimensions import DIMENSIONS

if TYPE_CHECKING:
    from promptmill.limits import DimensionState, PoolState

_LIMITS = ("REQUESTS", "INPUT TOKENS", "OUTPUT TOKENS")
_LABEL, _WIDTH = 13, 80


def page(now: LimitsNow) -> str:
    """All there is to say, as plain text."""
    used = now.in_use
    parts = [_block(state, now) for state in used]
    others = [state for state in now.pools if state not in used]
    listed = [state for state in others if state.mean.requests > 0 or _has_own(state, now.set_limits)]
    if listed:
        parts.append(_known(listed, named=_several_accounts(now.pools)))
    if not used and not listed:
        parts.append(_nobody(now))
    if rest := len(others) - len(listed):
        them = "them" if rest > 1 else "it"
        groups = several(rest, "model group")
        parts.append(f"Known and never used: {groups}; promptmill limits --json has {them}")
    return "\n\n".join(parts)


def set_table(entries: Sequence[SetLimits]) -> str:
    """What a person set; a sentence when that is nothing."""
    if not any(entry.is_set for entry in entries):
        return (
            "No limit is set. They are learned from the replies, beginning slowly.\n"
            "  set PROMPTMILL_RPM, PROMPTMILL_ITPM, PROMPTMILL_OTPM, or with an admin key\n"
            "  run: promptmill limits probe, while workers run"
        )
    head = ("SET, PER MINUTE", *_LIMITS)
    return columns(
        head, [(_whose(entry), *map(_ceiling, _values(entry))) for entry in entries], right=(1, 2, 3)
    )


def probe_table(probe: Probe) -> str:
    """What the API states, and under it what is set and what is in force where that differs."""
    of = "WORKSPACE" if probe.workspace else "ORGANIZATION"
    own = {_values(stated.configured) for stated in probe.groups}
    alike = len(own) == 1
    rows = [row for stated in probe.groups for row in _stated_rows(stated, alike=alike)]
    if alike and probe.groups[0].configured.is_set:
        rows.append(("set, for every model group", *map(_own, own.pop())))
    table = columns((f"STATED FOR THE {of}", *_LIMITS), rows, right=(1, 2, 3))
    parts = [f"{probe.workspace}\n{table}" if probe.workspace else table]
    parts += [_strangers(probe)] if _strangers(probe) else []
    if probe.others:
        others = [(each.name, each.limiter.replace("_", " "), f"{each.value:,.0f}") for each in probe.others]
        parts.append(columns(("LIMITED BESIDES", "WHAT", "VALUE"), others, right=(2,)))
    return "\n\n".join(parts)


def figure(limit: float | None) -> str:
    """A limit per minute; None is none."""
    return "none" if limit is None else f"{limit:,.0f}"


def _nobody(now: LimitsNow) -> str:
    if now.pools:
        first = "No call was made within the last hour."
    elif now.silence is None:
        first = "No call was made within the last hour, so only what is set is known."
    else:
        first = f"{now.silence[0].upper()}{now.silence[1:]}; only what is set is known."
    parts = [first]
    if not now.pools or any(entry.is_set for entry in now.set_limits):
        parts.append(set_table(now.set_limits))
    if now.backlog and (jobs := [each for each in now.backlog.jobs if each.pending + each.queued]):
        parts.append("\n".join(_fact("jobs waiting", waiting(jobs))))
    return "\n\n".join(parts)


def _block(state: "PoolState", now: LimitsNow) -> str:
    head = ("PER MINUTE", "LIMIT", "FROM", "USED", "OF LIMIT", "IN BUCKET", "OTHERS")
    table = columns(head, [_row(each) for each in state.dimensions], right=(1, 3, 4, 5, 6))
    line = several(state.processes_waiting, "process", "processes")
    facts = {
        "in flight": f"{several(state.in_flight, 'call')}, {line} in line",
        "allowed now": allowed(state),
        "next call": why(state, now.backlog),
    }
    of_group = [each for each in now.in_use if each.pool.group == state.pool.group]
    if state == of_group[-1]:
        facts["jobs waiting"] = _waiting(state.pool.group, now.backlog, shared=len(of_group) > 1)
    lines = [*table.splitlines(), *(line for name, fact in facts.items() for line in _fact(name, fact))]
    return "\n".join([f"{state.pool.group}, account {state.pool.account}", *(f"  {line}" for line in lines)])


def _waiting(group: str, backlog: Backlog | None, *, shared: bool) -> str:
    """What waits for a model group; whichever account has room takes it."""
    if backlog is None:
        return "not known, the database does not answer"
    return waiting(backlog.of_group(group)) + (" (for any of these accounts)" if shared else "")


def _fact(name: str, fact: str) -> list[str]:
    """A fact beside its name; one that is too long goes on below itself."""
    return wrap(
        f"{name:<{_LABEL}}  {fact}",
        _WIDTH - 2,
        subsequent_indent=" " * (_LABEL + 2),
        break_on_hyphens=False,
    )


def _row(each: "DimensionState") -> tuple[str, ...]:
    name = each.dimension.value.replace("_", " ").ljust(_LABEL)
    used = f"{each.used_per_minute:,.0f}"
    if each.limit is None:
        return (name, "none", "", used, "-", "-", "-")
    part = share(each.used_per_minute / each.limit)
    return (
        name,
        figure(each.limit),
        FROM[each.source],
        used,
        part,
        f"{max(0.0, each.level):,.0f}",
        _taken(each),
    )


def _taken(each: "DimensionState") -> str:
    return share(each.foreign / each.limit) if each.limit else "-"


def _known(states: "Sequence[PoolState]", *, named: bool) -> str:
    head = ("NOT IN USE, PER MINUTE", *_LIMITS, "FROM")
    rows = [
        (
            f"{state.pool.group} ({state.pool.account})" if named else state.pool.group,
            *(figure(each.limit) for each in state.dimensions),
            ", ".join(dict.fromkeys(FROM[each.source] for each in state.dimensions if FROM[each.source])),
        )
        for state in states
    ]
    table = columns(head, rows, right=(1, 2, 3))
    if max(map(len, table.splitlines())) <= _WIDTH:
        return table
    figures = columns(head[1:], [row[1:] for row in rows], right=(0, 1, 2)).splitlines()
    names = [head[0], *(row[0] for row in rows)]
    return "\n".join(line for name, row in zip(names, figures, strict=True) for line in (name, f"  {row}"))


def _has_own(state: "PoolState", entries: Sequence[SetLimits]) -> bool:
    """Whether somebody set limits for this very group; those for every group would list all of them."""
    of_group = [each for each in entries if each.is_set and each.group == state.pool.group]
    if not of_group:
        return False
    from promptmill.claude.keys import configured_account  # noqa: PLC0415  # 0.4 s of imports

    accounts = (None, state.pool.account, configured_account(state.pool.account))
    return any(each.account in accounts for each in of_group)


def _several_accounts(states: "Sequence[PoolState]") -> bool:
    return len({state.pool.account for state in states}) > 1


def _stated_rows(stated: StatedLimits, *, alike: bool) -> list[tuple[str, ...]]:
    said, set_ = _values(stated), _values(stated.configured)
    rows = [(stated.group, *("not said" if each is None else figure(each or None) for each in said))]
    if stated.configured.is_set and not alike:
        rows.append(("  set", *map(_own, set_)))
    if stated.in_force is not None:
        in_force = tuple(each.limit for each in stated.in_force.dimensions)
        if in_force != tuple(map(_lower, said, set_)):
            rows.append(("  in force", *map(figure, in_force)))
    return rows


def _own(limit: float | None) -> str:
    return "-" if limit is None else figure(limit or None)


def _lower(stated: float | None, set_: float | None) -> float | None:
    """What is to be expected in force of the two; what is set to 0 is no limit, whatever is stated."""
    return None if set_ == 0 else min((each for each in (stated, set_) if each), default=None)


def _strangers(probe: Probe) -> str:
    """What to do about models that are newer than we are."""
    strangers = [each for each in probe.groups if not each.known]
    return "\n".join(
        f"{each.group} is not known here: taken as a model group of its own (the API: {each.name})"
        for each in strangers
    )


def _whose(entry: SetLimits) -> str:
    group = entry.group or "every model group"
    return group if entry.account is None else f"{group} of {entry.account}"


def _values(entry: SetLimits | StatedLimits) -> tuple[float | None, ...]:
    return tuple(getattr(entry, dimension.value) for dimension in DIMENSIONS)


def _ceiling(value: float | None) -> str:
    return "learned" if value is None else figure(value or None)
