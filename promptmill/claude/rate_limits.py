"""The limits of an organization or a workspace, as the Rate Limits API states them (claude-api.md, 5.7).

One idea: an answer is read leniently, because groups and limiter types may be added at any time; what is not
understood is kept under its own name, never dropped. Only an admin key may ask, and it calls no model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from promptmill import __version__
from promptmill.claude import failures
from promptmill.claude.endpoints import clean_url, shown_url
from promptmill.claude.replies import MalformedAnswer, read_object
from promptmill.dimensions import Dimension
from promptmill.errors import ConfigurationError, ConnectionFailed, PromptmillError

MODEL_GROUP = "model_group"

#: Limiter types of each dimension, the one that counts as the server does first.
LIMITERS: Mapping[Dimension, tuple[str, ...]] = {
    Dimension.REQUESTS: ("requests_per_minute",),
    Dimension.INPUT_TOKENS: ("input_tokens_per_minute_cache_aware", "input_tokens_per_minute"),
    Dimension.OUTPUT_TOKENS: ("output_tokens_per_minute",),
}

#: The same for calls in fast mode, which have limits of their own; requests are not limited apart.
FAST_LIMITERS: Mapping[Dimension, tuple[str, ...]] = {
    Dimension.REQUESTS: (),
    Dimension.INPUT_TOKENS: ("fast_itpmca",),
    Dimension.OUTPUT_TOKENS: ("fast_otpm",),
}

#: A limit on input and output together: how much of it is for either is not said.
BOTH_TOKENS = "tokens_per_minute"

_SETTING = "ANTHROPIC_ADMIN_KEY"
_MOST_PAGES = 100
_OAUTH = "sk-ant-oat"


@dataclass(frozen=True, slots=True)
class RateLimitGroup:
    """What one entry states.

    Attributes:
        kind: `model_group`, `batch`, `token_count`, `files`, `skills`, `web_search`, or a newer word.
        name: the API's own name of the group, for people; it may change.
        models: ids and aliases; empty unless it is a model group.
        limits: limiter type to value, in the API's words and units.
    """

    kind: str
    name: str
    models: tuple[str, ...]
    limits: Mapping[str, float]

    def per_minute(self, dimension: Dimension) -> float | None:
        """The limit in one dimension: 0 = there is none, None = not said.

        A type that is missing beside others is no limit. A stated zero would forbid every call, so it is taken
        as not said rather than as "no limit".
        """
        for limiter in LIMITERS[dimension]:
            if limiter in self.limits:
                return self.limits[limiter] or None
        shared = dimension is not Dimension.REQUESTS and BOTH_TOKENS in self.limits
        return None if shared or not self.limits else 0.0

    @property
    def has_fast_mode(self) -> bool:
        """Whether anything is stated for calls in fast mode."""
        return any(name in self.limits for names in FAST_LIMITERS.values() for name in names)

    def fast_per_minute(self, dimension: Dimension) -> float | None:
        """The limit of calls in fast mode; None = not said."""
        return next(
            (self.limits[name] or None for name in FAST_LIMITERS[dimension] if name in self.limits), None
        )


def fetch_rate_limits(
    base_url: str,
    admin_key: SecretStr,
    *,
    api_version: str,
    workspace: str | None = None,
    timeout: float = 30.0,
) -> tuple[RateLimitGroup, ...]:
    """Every group of the organization that the key belongs to, or of one of its workspaces.

    Args:
        base_url: where Claude is.
        admin_key: an admin key (`sk-ant-admin…`), or an OAuth token with the scope `org:admin`.
        api_version: the `anthropic-version` header; both shapes of the answer are understood.
        workspace: `wrkspc_…`; with what it inherits from the organization.
        timeout: seconds, for each step of each request.

    Raises:
        ConfigurationError: the key may not ask, or there is no such workspace; says what to do.
        ClaudeError: the call failed otherwise.
    """
    from promptmill.claude.synchronous import BROKEN, open_sync_client  # noqa: PLC0415  # 0.4 s of imports

    url, secret = clean_url(base_url), admin_key.get_secret_value().strip()
    failure: PromptmillError
    try:
        with open_sync_client(url, timeout=timeout) as client:
            client.headers.update(_headers(secret, api_version))
            return tuple(_all_pages(client, url + _path(workspace), workspace))
    except BROKEN as error:
        failure = _no_answer(url, _cause_of(error))
    except MalformedAnswer as error:
        failure = _no_answer(url, str(error))
    except PromptmillError as error:
        failure = error
    # Outside the handlers: an exception of the HTTP library holds the request, and with it the key.
    if secret:
        failure.args = (str(failure).replace(secret, "***"),)
    try:
        raise failure
    finally:
        del failure  # it refers to this frame by its traceback


def read_page(page: Mapping[str, Any]) -> list[RateLimitGroup]:
    """The entries of one page, in the shape of either API version.

    Raises:
        MalformedAnswer: it is no page of a list.
    """
    entries = page.get("data")
    if not isinstance(entries, list):
        raise MalformedAnswer("the answer is not a page of a list")
    return [_group(entry) for entry in entries if isinstance(entry, Mapping)]


def _all_pages(client: Any, url: str, workspace: str | None) -> Iterator[RateLimitGroup]:
    query = {"include_inherited": "true"} if workspace else {}
    for _ in range(_MOST_PAGES):
        response = client.get(url, params=query)
        if response.status_code != HTTPStatus.OK:
            raise _refusal(response, workspace)
        page = read_object(response.content)
        yield from read_page(page)
        following = page.get("next_page")
        if not following:
            return
        query["page"] = str(following)
    raise ConnectionFailed("the list of rate limits does not end")


def _no_answer(url: str, why: str) -> ConnectionFailed:
    return ConnectionFailed(failures.clean(f"the limits cannot be read from {shown_url(url)}: {why}"))


def _cause_of(error: BaseException) -> str:
    """The system's own error where there is one: the synchronous client keeps it as the context."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return failures.cause_of(cause or error)


def _refusal(response: Any, workspace: str | None) -> Exception:
    headers = {name.lower(): value for name, value in response.headers.items()}
    failure = failures.from_response(response.status_code, headers, response.text, now=datetime.now(UTC))
    why = _why_not(failure.status, workspace) if failure.error_type else None
    return failure if why is None else ConfigurationError(f"{why} ({failure})", setting=_SETTING)


def _why_not(status: int | None, workspace: str | None) -> str | None:
    if status == HTTPStatus.UNAUTHORIZED:
        return (
            f"{_SETTING}: this key is not accepted for reading limits; it takes an admin key, which an admin of "
            "the organization makes in the Console"
        )
    if status == HTTPStatus.FORBIDDEN:
        return (
            f"{_SETTING}: this key may not read the organization's limits; an admin key may, and individual "
            "accounts have no such key"
        )
    if status == HTTPStatus.NOT_FOUND and workspace:
        return f"--workspace: the organization of this key has no workspace {workspace}"
    if status == HTTPStatus.NOT_FOUND:
        return f"{_SETTING}: this account cannot be asked for its limits; individual accounts cannot"
    return None


def _path(workspace: str | None) -> str:
    if workspace is None:
        return "/v1/organizations/rate_limits"
    return f"/v1/organizations/workspaces/{quote(workspace, safe='')}/rate_limits"


def _headers(secret: str, api_version: str) -> dict[str, str]:
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigurationError(
            f"{_SETTING}: the key is empty or holds characters no key has", setting=_SETTING
        )
    credential = {"authorization": f"Bearer {secret}"} if secret.startswith(_OAUTH) else {"x-api-key": secret}
    return {
        **credential,
        "anthropic-version": api_version,
        "accept": "application/json",
        "user-agent": f"promptmill/{__version__}",
    }


def _group(entry: Mapping[str, Any]) -> RateLimitGroup:
    """One entry; version 2023-06-01 has `group_type` where 2026-10-21 has `group`."""
    group = entry.get("group")
    group = group if isinstance(group, Mapping) else {}
    kind = str(group.get("type") or entry.get("group_type") or "unknown")
    models = entry.get("models")
    names = tuple(str(name) for name in models) if isinstance(models, list) else ()
    name = group.get("display_name") or group.get("id") or entry.get("id") or entry.get("rate_limit_id")
    return RateLimitGroup(kind, str(name or kind), names, _limits(entry.get("limits")))


def _limits(entries: object) -> dict[str, float]:
    """Limiter type to value; a null, which a newer version might send for "no limit", is left out."""
    limits: dict[str, float] = {}
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping):
            value = entry.get("value")
            if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
                limits[str(entry.get("type"))] = float(value)
    return limits
