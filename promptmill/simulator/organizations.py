"""Who calls: keys, the organizations they belong to, and the limits each organization has per model group.

The one idea: limits belong to an organization and a model group, never to a key or a model string
(claude-api.md, 5.1). A key that is named nowhere makes an organization of its own, known by a hash of the key.
"""

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from promptmill.dimensions import Amounts
from promptmill.simulator import problems
from promptmill.simulator.caching import PromptCache
from promptmill.simulator.config import SimulatorConfig
from promptmill.simulator.limits import Bucket, Ceilings, Pool, Tenant
from promptmill.simulator.scenario import LimitChange, Scenario

ADMIN_KEY = "sk-ant-admin"
_REFUSED_WORD = "invalid"
_NAMESPACE = uuid.UUID("5b1f7a52-8f0e-4f5c-9a57-2d9b6f0c3e11")
# The published Start tier (claude-api.md, 5.2).
_START = Amounts(1_000, 2_000_000, 400_000)
_START_LARGEST = Amounts(1_000, 500_000, 100_000)
_LARGEST = ("claude-fable", "claude-mythos")


class Organization:
    """One account: its pools, its cache, its bucket for count_tokens."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.id = str(uuid.uuid5(_NAMESPACE, name))
        self.pools: dict[str, Pool] = {}
        self.cache = PromptCache()
        self.counting: Bucket | None = None


class Organizations:
    """All accounts of one simulator, and the limits in force.

    Args:
        config: limits, bursts, keys.
        scenario: tenants and changes of limits.
        started: the monotonic moment that the scenario's seconds count from.
    """

    def __init__(self, config: SimulatorConfig, scenario: Scenario, started: float) -> None:
        self._config = config
        self._started = started
        self._names = {key: name for name, keys in config.organizations.items() for key in keys}
        self._revoked: set[str] = set()
        self._by_key: dict[str, Organization] = {}
        self._by_name: dict[str, Organization] = {}
        self._overrides: dict[tuple[str | None, str | None], dict[str, float]] = {}
        self._changes: list[LimitChange] = sorted(scenario.changes, key=lambda change: change.at_s)
        self._tenants = [
            Tenant(
                tenant.share,
                started + tenant.from_s,
                float("inf") if tenant.until_s is None else started + tenant.until_s,
            )
            for tenant in scenario.tenants
        ]

    def __iter__(self) -> Iterator[Organization]:
        return iter(self._by_name.values())

    def of_key(self, key: str) -> Organization:
        """The account of a key.

        Raises:
            ApiProblem: 401, the key is not valid here.
        """
        found = self._by_key.get(key)
        if key in self._revoked:
            raise problems.wrong_key()
        if found is not None:
            return found
        name = self._names.get(key)
        if name is None:
            if self._config.only_known_keys or _REFUSED_WORD in key:
                raise problems.wrong_key()
            name = "org-" + hashlib.sha256(key.encode()).hexdigest()[:10]
        organization = self._by_name.setdefault(name, Organization(name))
        self._by_key[key] = organization
        return organization

    def add_key(self, key: str, organization: str) -> None:
        """From now on a key of an organization; also one that was revoked."""
        self._revoked.discard(key)
        self._by_key.pop(key, None)
        self._names[key] = organization

    def revoke_key(self, key: str) -> None:
        """From now on it is refused; calls that have begun go on."""
        self._revoked.add(key)

    def name_of(self, organization_id: str | None) -> str:
        """The name behind the id of a reply's header; empty when there is none."""
        return next((each.name for each in self if each.id == organization_id), "")

    def pool(self, organization: Organization, group: str, now: float) -> Pool:
        """The buckets of an organization for a model group."""
        self.catch_up(now)
        pool = organization.pools.get(group)
        if pool is None:
            ceilings = self._ceilings(organization.name, group)
            pool = organization.pools[group] = Pool(ceilings, now, self._tenants)
        return pool

    def counting_bucket(self, organization: Organization, now: float) -> Bucket | None:
        """The bucket for count_tokens; None when it has no limit."""
        if self._config.count_tokens_rpm and organization.counting is None:
            organization.counting = Bucket(
                self._config.count_tokens_rpm, self._config.burst_s, now, least=1.0
            )
        return organization.counting

    def limits_of(self, organization: Organization, group: str) -> Amounts:
        """The limits per minute; 0 = none."""
        return self._ceilings(organization.name, group).per_minute

    def set_limits(
        self,
        values: Mapping[str, float],
        now: float,
        *,
        organization: str | None = None,
        group: str | None = None,
    ) -> None:
        """Put other limits in force at once.

        Args:
            values: any of `rpm`, `itpm`, `otpm`, per minute; 0 = no limit.
            now: the moment.
            organization: only for this one.
            group: only for this model group.
        """
        self._overrides.setdefault((organization, group), {}).update(values)
        for each in self._by_name.values():
            for name, pool in each.pools.items():
                pool.change(self._ceilings(each.name, name), now)

    def catch_up(self, now: float) -> None:
        """Make the scenario's changes of limits that are due, each at its own moment."""
        while self._changes and now >= self._started + self._changes[0].at_s:
            change = self._changes.pop(0)
            stated = {"rpm": change.rpm, "itpm": change.itpm, "otpm": change.otpm}
            values = {name: value for name, value in stated.items() if value is not None}
            self.set_limits(values, self._started + change.at_s)

    def _ceilings(self, organization: str, group: str) -> Ceilings:
        config = self._config
        published = _START_LARGEST if group.startswith(_LARGEST) else _START
        limit = Amounts(
            published.requests if config.rpm is None else config.rpm,
            published.input_tokens if config.itpm is None else config.itpm,
            published.output_tokens if config.otpm is None else config.otpm,
        )
        # From the widest override to the narrowest.
        for place in ((None, None), (None, group), (organization, None), (organization, group)):
            limit = _override(limit, self._overrides.get(place, {}))
        return Ceilings(
            per_minute=limit,
            burst_s=_bursts(config),
            hidden_request_burst_s=config.hidden_request_burst_s,
            acceleration=config.acceleration,
        )


def read_key(api_key: str | None, authorization: str | None) -> str:
    """The key of a request; `x-api-key` wins over a bearer token (claude-api.md, 1.2).

    Raises:
        ApiProblem: 401, there is none.
    """
    if api_key:
        return api_key
    if authorization and authorization[:7].lower() == "bearer ":
        token = authorization[7:].strip()
        if token:
            return token
    raise problems.missing_key()


def _override(limit: Amounts, values: Mapping[str, float]) -> Amounts:
    names: Sequence[tuple[str, str]] = (
        ("rpm", "requests"),
        ("itpm", "input_tokens"),
        ("otpm", "output_tokens"),
    )
    return replace(limit, **{long: values[short] for short, long in names if short in values})


def _bursts(config: SimulatorConfig) -> Amounts:
    def burst(own: float | None) -> float:
        return config.burst_s if own is None else own

    return Amounts(burst(config.request_burst_s), burst(config.input_burst_s), burst(config.output_burst_s))
