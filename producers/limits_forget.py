"""Forget what the limiter learned of an account's limits, so that it is learned anew, beginning gently.

For when a server behind the same name has changed its buckets: one that holds less under the same limit looks as if
another program used it.
"""

from typing import TYPE_CHECKING

from producers.limits_reader import LimitsReader
from promptmill.claude.keys import configured_account, rehearsing
from promptmill.errors import NotFound
from promptmill.settings import Settings, load

if TYPE_CHECKING:
    from promptmill.limits import Pool


def forget_limits(
    *, account: str | None = None, group: str | None = None, settings: Settings | None = None
) -> "list[Pool]":
    """Forget what was learned of the pools of an account and a model group; what is set stays.

    Args:
        account: as in the file of keys, or as `limits` shows it; every one that was used lately when None.
        group: the model group; every one that was used lately when None.
        settings: which Redis; that of this process when None.

    Returns:
        The pools that were forgotten.

    Raises:
        NotFound: nothing is known of any such pool.
        Unavailable: no Redis runs, or it does not answer.
    """
    settings = settings or load()
    with LimitsReader(settings) as reader:
        known = [state.pool for state in reader.states()]
        wanted = [pool for pool in known if _is_meant(pool, account, group)]
        if account and group:
            by_name = _by_name(account, group, settings.claude.base_url)
            wanted += [each for each in by_name if each not in wanted]
        forgotten = reader.forget(wanted)
    if not forgotten:
        raise NotFound(_unknown(account, group, known))
    return forgotten


def _is_meant(pool: "Pool", account: str | None, group: str | None) -> bool:
    names = (None, pool.account, configured_account(pool.account))
    return account in names and group in (None, pool.group)


def _by_name(account: str, group: str, base_url: str) -> "list[Pool]":
    """One that was not used lately is kept all the same, and not listed."""
    from promptmill.claude.endpoints import clean_url, shown_url  # noqa: PLC0415  # 0.4 s of imports
    from promptmill.limits import Pool  # noqa: PLC0415  # 0.3 s that are not needed without a Redis

    return [Pool(account, group), Pool(rehearsing(account, shown_url(clean_url(base_url))), group)]


def _unknown(account: str | None, group: str | None, known: "list[Pool]") -> str:
    asked = [f"account {account}"] if account else []
    asked += [f"model group {group}"] if group else []
    there = ", ".join(f"{pool.group} (account {pool.account})" for pool in known) or "nothing"
    return f"nothing is known of {' and '.join(asked) or 'any limit'}; in use lately: {there}"
