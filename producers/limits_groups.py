"""Model groups with limits of their own that no known model is of: most likely a slip of the pen. Pure.

A name that we do not know may be a model newer than we are, so it is told, never refused.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from promptmill.catalogue import Catalogue, limit_group
from promptmill.settings import GroupLimits, LimitSettings


@dataclass(frozen=True, slots=True)
class StrangeGroup:
    """An entry that perhaps nothing follows.

    Attributes:
        setting: where it stands in promptmill.toml.
        nearest: the group that is most likely meant; None when no name is like it.
    """

    setting: str
    nearest: str | None


def strange_groups(limits: LimitSettings, catalogue: Catalogue) -> list[StrangeGroup]:
    """The entries for groups of which the catalogue knows no model, in the order in which they stand."""
    known = {
        limit_group(facts.group, speed) for facts in catalogue.models() for speed in ("standard", "fast")
    }
    alive = sorted({facts.group for facts in catalogue.models() if facts.retires_on is None})
    alive += [limit_group(group, "fast") for group in alive]
    return [
        StrangeGroup(f'{place}."{group}"', _nearest(group, catalogue, alive))
        for place, groups in _entries(limits)
        for group in groups
        if group not in known
    ]


def _entries(limits: LimitSettings) -> Iterator[tuple[str, Mapping[str, GroupLimits]]]:
    yield "limits.groups", limits.groups
    for name, own in limits.accounts.items():
        yield f"limits.accounts.{name}.groups", own.groups


def _nearest(group: str, catalogue: Catalogue, alive: list[str]) -> str | None:
    if (of_model := catalogue.group_of(group)) != group:
        return of_model
    return next(iter(difflib.get_close_matches(group.lower(), alive, n=1)), None)
