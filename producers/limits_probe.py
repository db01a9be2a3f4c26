"""`promptmill limits probe`: read the account's limits where they are kept, and tell the running limiter.

An account's own words are mapped to ours: the API's models say which of our model groups an entry is for. What
has no place with us is listed, not dropped.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from producers.limits_now import SetLimits
from producers.limits_reader import LimitsReader
from promptmill.catalogue import Catalogue, limit_group
from promptmill.dimensions import DIMENSIONS
from promptmill.errors import ConfigurationError, NotFound, Unavailable
from promptmill.settings import Settings, load

if TYPE_CHECKING:
    from promptmill.claude.rate_limits import RateLimitGroup
    from promptmill.limits import PoolState

_SETTING = "ANTHROPIC_ADMIN_KEY"
_DEFAULT_ACCOUNT = "default"


@dataclass(frozen=True, slots=True)
class StatedLimits:
    """What the API states for one of our model groups, per minute; 0 is no limit, None is not said.

    Attributes:
        group: our name of it.
        name: the API's name.
        known: whether the catalogue knows a model of it.
        in_force: what the limiter goes by after it was told; None when nobody could be told.
    """

    group: str
    name: str
    known: bool
    requests: float | None
    input_tokens: float | None
    output_tokens: float | None
    configured: SetLimits
    in_force: "PoolState | None" = None


@dataclass(frozen=True, slots=True)
class OtherLimit:
    """A limit that the limiter does not keep, in the API's words."""

    name: str
    limiter: str
    value: float


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of asking.

    Attributes:
        account: whose limits they are, in our words.
        workspace: of which workspace; None for the organization's own.
        groups: the model groups.
        others: what is limited besides: batches, files, counting tokens …
        silence: why the limiter was not told; None when it was.
    """

    account: str
    workspace: str | None
    groups: tuple[StatedLimits, ...]
    others: tuple[OtherLimit, ...]
    silence: str | None


def probe_limits(
    *, account: str | None = None, workspace: str | None = None, settings: Settings | None = None
) -> Probe:
    """Ask the Rate Limits API, and tell the limiter of this Redis what it says.

    Args:
        account: whose limits the admin key reads; the first one of the keys when None.
        workspace: ask for this workspace's limits instead, with what it inherits.
        settings: whose keys, and which Redis, loaded `with_admin_key`; those of this process when None.

    Raises:
        ConfigurationError: there is no admin key, or it may not ask.
        NotFound: no key belongs to that account.
        ClaudeError: the call failed.
    """
    from promptmill.claude.endpoints import identify_now  # noqa: PLC0415  # 0.4 s of imports
    from promptmill.claude.keys import rehearsing  # noqa: PLC0415  # likewise
    from promptmill.claude.rate_limits import fetch_rate_limits  # noqa: PLC0415  # likewise

    settings = settings or load(with_admin_key=True)
    key = settings.claude.read_admin_key()
    if key is None:
        raise ConfigurationError(
            f"{_SETTING}: reading an account's limits needs an admin key, which an admin of the organization makes "
            f"in the Console; set {_SETTING}, or {_SETTING}_FILE to a file that holds it. Without one, limits are "
            "learned from the replies",
            setting=_SETTING,
        )
    owner = _account(settings, account)
    entries = fetch_rate_limits(
        settings.claude.base_url, key, api_version=settings.claude.api_version, workspace=workspace
    )
    stated = by_group(entries, settings, owner)
    endpoint = identify_now(settings.claude.base_url)
    if endpoint.simulated:
        owner = rehearsing(owner, endpoint.url)
    return _teach(settings, Probe(owner, workspace, stated, other_limits(entries), None))


def by_group(
    entries: "Iterable[RateLimitGroup]", settings: Settings, account: str
) -> tuple[StatedLimits, ...]:
    """The entries in our model groups, by name; where two entries are for one group, the lower limit holds."""
    catalogue = Catalogue(settings.models)
    found: dict[str, list[RateLimitGroup]] = {}
    known: set[str] = set()
    for entry in entries:
        for group in dict.fromkeys(catalogue.group_of(model) for model in entry.models):
            found.setdefault(group, []).append(entry)
        known |= {catalogue.group_of(model) for model in entry.models if catalogue.find_model(model)}
    stated = []
    for group, of_it in sorted(found.items()):
        stated.append(_stated(settings, account, group, of_it, known=group in known))
        if any(entry.has_fast_mode for entry in of_it):
            stated.append(_stated(settings, account, group, of_it, known=group in known, fast=True))
    return tuple(stated)


def other_limits(entries: "Iterable[RateLimitGroup]") -> tuple[OtherLimit, ...]:
    """What is limited besides requests and tokens of a model group."""
    from promptmill.claude.rate_limits import FAST_LIMITERS, LIMITERS  # noqa: PLC0415  # loaded by who asked the API

    ours = {name for known in (LIMITERS, FAST_LIMITERS) for names in known.values() for name in names}
    return tuple(
        OtherLimit(entry.name, limiter, value)
        for entry in entries
        for limiter, value in entry.limits.items()
        if not entry.models or limiter not in ours
    )


def configured_for(settings: Settings, account: str, group: str) -> SetLimits:
    """What a person set for a group of an account."""
    entry = settings.limits.of(group, account)
    return SetLimits(account, group, entry.rpm, entry.itpm, entry.otpm)


def _account(settings: Settings, wanted: str | None) -> str:
    """The account whose limits they are.

    Raises:
        NotFound: no key belongs to it.
    """
    from promptmill.claude.keys import declared_keys  # noqa: PLC0415  # 0.4 s of imports

    claude = settings.claude
    keys = declared_keys(claude.api_key, claude.keys_file, api_key_file=claude.api_key_file)
    accounts = list(dict.fromkeys(key.account for key in keys)) or [_DEFAULT_ACCOUNT]
    if wanted is None:
        return accounts[0]
    if wanted not in accounts:
        raise NotFound(f"no key belongs to the account {wanted}; there are: {', '.join(accounts)}")
    return wanted


def _stated(
    settings: Settings,
    account: str,
    group: str,
    entries: "Sequence[RateLimitGroup]",
    *,
    known: bool,
    fast: bool = False,
) -> StatedLimits:
    name = limit_group(group, "fast") if fast else group
    requests, input_tokens, output_tokens = (
        _lowest([entry.fast_per_minute(each) if fast else entry.per_minute(each) for entry in entries])
        for each in DIMENSIONS
    )
    return StatedLimits(
        group=name,
        name=", ".join(entry.name for entry in entries),
        known=known,
        requests=requests,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        configured=configured_for(settings, account, name),
    )


def _lowest(limits: Sequence[float | None]) -> float | None:
    """The lowest limit stated; 0, no limit, is the highest."""
    stated = [limit for limit in limits if limit is not None]
    return min((limit for limit in stated if limit), default=0.0) if stated else None


def _teach(settings: Settings, probe: Probe) -> Probe:
    from promptmill.limits import Ceilings, Pool  # noqa: PLC0415  # 0.3 s of imports

    told = {
        Pool(probe.account, each.group): Ceilings(each.requests, each.input_tokens, each.output_tokens)
        for each in probe.groups
    }
    try:
        with LimitsReader(settings) as reader:
            reader.teach(told)
            states = {state.pool: state for state in reader.states()}
    except Unavailable as error:
        return replace(probe, silence=str(error))
    groups = (replace(each, in_force=states.get(Pool(probe.account, each.group))) for each in probe.groups)
    return replace(probe, groups=tuple(groups))
