"""ClaudeClient: one call, made once, answered by a Reply or a ClaudeError.

No retry hides here: what follows a failure is decided elsewhere, and every try passes the limiter. A plain
answer and a streamed one give the same Reply; streaming only keeps a long call's connection from falling
silent. Nothing that leaves this module (error, message, log) holds the key.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Self, TypeVar

from promptmill import __version__, jsontext
from promptmill.claude import failures
from promptmill.claude.bounded import grown, read_answer, read_error
from promptmill.claude.endpoints import REAL_API, clean_url
from promptmill.claude.headers import Headers, read_headroom
from promptmill.claude.keys import Header, Key
from promptmill.claude.replies import MalformedAnswer, Reply, read_message, read_object, reply_of
from promptmill.claude.stream import EventParser, MessageFold
from promptmill.claude.transport import BROKEN, Connections, Content, Request, Response
from promptmill.dimensions import Headroom
from promptmill.errors import ClaudeError, PromptRejected
from promptmill.prompts import Body, Prompt
from promptmill.usage import Usage

API_VERSION = "2026-10-21"

#: `max_tokens` from which a plain answer may take more than ten minutes (the official SDK refuses it there,
#: claude-api.md, 4.4); above it calls are streamed.
STREAM_ABOVE = 21_333

#: Seconds that the end of a stream is waited for after `message_stop`, so that its connection can be reused.
_LINGER = 1.0

OAUTH_BETA = "oauth-2025-04-20"

_PAGE = 1000

_BETA = re.compile(r"[\w.,-]+", re.ASCII)

#: What count_tokens takes of a Messages body (claude-api.md, 8); anything else is refused there.
_COUNTED = {
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "cache_control",
    "speed",
    "context_management",
    "mcp_servers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a call may take, in seconds.

    Attributes:
        connect: to open a connection: DNS, a proxy's consent and TLS included.
        idle: between two pieces of a plain answer; it sends nothing until it is done.
        stream_idle: between two pieces of a streamed answer; pings count as pieces.
        total: the whole call by the wall clock, whatever trickles in.
    """

    connect: float = 10.0
    idle: float = 600.0
    stream_idle: float = 60.0
    total: float = 900.0


Tell = Callable[[Headroom, Usage], None]
"""Takes what the headers say about the group's limits, and what is counted when an answer begins: its input."""


@dataclass(slots=True)
class _Exchange:
    """What is known of a call so far, in case it breaks off."""

    headers: Headers | None = None
    fold: MessageFold = field(default_factory=MessageFold)
    tell: Tell | None = None


T = TypeVar("T")

_Reader = Callable[[Response, _Exchange], Awaitable[T | ClaudeError]]


class ClaudeClient:
    """Calls one endpoint from one event loop, up to `max_connections` at a time; close it at the end."""

    def __init__(
        self,
        *,
        base_url: str = REAL_API,
        api_version: str = API_VERSION,
        timeouts: Timeouts | None = None,
        max_connections: int = 1000,
        stream_above: int = STREAM_ABOVE,
    ) -> None:
        self._url = clean_url(base_url)
        self._api_version = api_version
        self._timeouts = timeouts or Timeouts()
        self._stream_above = stream_above
        self._connections = Connections(self._url, most=max_connections, connect=self._timeouts.connect)

    async def create(
        self, prompt: Prompt, key: Key, *, stream: bool | None = None, tell: Tell | None = None
    ) -> Reply:
        """Ask Claude once.

        Args:
            prompt: the body as the API takes it; a `betas` list travels as the `anthropic-beta` header.
            key: whose account is called.
            stream: True or False decides; None streams when `max_tokens` is above the threshold.
            tell: hears at the beginning of a streamed answer what a plain one says at its end.

        Raises:
            ClaudeError: the one of its kinds that fits, with usage, headroom and the time to wait if known.
        """
        streamed = prompt.max_tokens > self._stream_above if stream is None else stream
        body = {**prompt.body, "stream": True} if streamed else _without(prompt.body, "stream")
        idle = self._timeouts.stream_idle if streamed else self._timeouts.idle
        request = self._request("POST", "/v1/messages", key, body=body, idle=idle)
        return await self._exchange(request, key, _read_reply, tell)

    async def count_tokens(self, prompt: Prompt, key: Key) -> int:
        """Anthropic's own estimate of the prompt's input tokens; free, with limits of its own.

        Raises:
            ClaudeError: as `create`.
        """
        body = {name: value for name, value in prompt.body.items() if name in _COUNTED or name == "betas"}
        request = self._request("POST", "/v1/messages/count_tokens", key, body=body)
        return await self._exchange(request, key, _read_count)

    async def list_models(self, key: Key) -> list[dict[str, Any]]:
        """Every model this key can use, as the API describes it (claude-api.md, 10), newest first.

        Raises:
            ClaudeError: as `create`.
        """
        models: list[dict[str, Any]] = []
        query: dict[str, str | int] = {"limit": _PAGE}
        while True:
            request = self._request("GET", "/v1/models", key, query=query)
            page = await self._exchange(request, key, _read_page)
            models.extend(page["data"])
            if not page.get("has_more") or not page["data"]:
                return models
            query["after_id"] = page["data"][-1]["id"]

    async def aclose(self) -> None:
        """Close every connection."""
        await self._connections.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _request(
        self,
        method: str,
        path: str,
        key: Key,
        *,
        body: Body | None = None,
        query: dict[str, str | int] | None = None,
        idle: float | None = None,
    ) -> Request:
        headers = {
            **_credential(key),
            "anthropic-version": self._api_version,
            "accept": "application/json",
            "user-agent": f"promptmill/{__version__}",
        }
        if betas := _beta_names(body, key):
            headers["anthropic-beta"] = betas
        if body is not None:
            headers["content-type"] = "application/json"
        # In the order of the body, because the order of a tool's schema decides a prompt-cache hit.
        content = None if body is None else Content(jsontext.written(_without(body, "betas")))
        return Request(method, self._url + path, headers, idle or self._timeouts.idle, content, query)

    async def _exchange(self, request: Request, key: Key, read: _Reader[T], tell: Tell | None = None) -> T:
        so_far = _Exchange(tell=tell)
        deadline = asyncio.timeout(self._timeouts.total)
        outcome: T | ClaudeError
        try:
            async with deadline:
                outcome = await self._send(request, so_far, read)
        except BROKEN as error:
            late = f"not within {self._timeouts.total:g} s"
            why = late if deadline.expired() else failures.cause_of(error)
            outcome = _broken(why, so_far, sent=request.sent)
        except MalformedAnswer as error:
            outcome = _broken(str(error), so_far)
        # Outside the handlers: an exception of the HTTP library holds the request, and with it the key.
        if isinstance(outcome, ClaudeError):
            try:
                raise _scrubbed(outcome, key)
            finally:
                del outcome  # it refers to this frame by its traceback, and with it to the prompt
        return outcome

    async def _send(self, request: Request, so_far: _Exchange, read: _Reader[T]) -> T | ClaudeError:
        response = await self._connections.send(request)
        try:
            headers = _lowered(response)
            if response.status == HTTPStatus.OK:
                so_far.headers = headers
                return await read(response, so_far)
            body = await read_error(response)
            return failures.from_response(response.status, headers, body, now=datetime.now(UTC))
        finally:
            # Whatever is unread closes the connection, so that a cancelled call stops at the server too.
            response.release()


async def _read_count(response: Response, _so_far: _Exchange) -> int:
    count = read_object(await read_answer(response)).get("input_tokens")
    if not isinstance(count, int):
        raise MalformedAnswer("the answer is not a count")
    return count


async def _read_page(response: Response, _so_far: _Exchange) -> dict[str, Any]:
    page = read_object(await read_answer(response))
    if not isinstance(page.get("data"), list):
        raise MalformedAnswer("the answer is not a page of a list")
    return page


async def _read_reply(response: Response, so_far: _Exchange) -> Reply | ClaudeError:
    headers = so_far.headers or {}
    if "text/event-stream" not in headers.get("content-type", ""):
        return reply_of(read_message(await read_answer(response)), headers, streamed=False)
    fold, chunks = so_far.fold, response.content.iter_any()
    await _fold(chunks, fold, lambda: _tell(so_far))
    if fold.error is not None:
        return failures.from_event(fold.error, headers, usage=fold.usage)
    if not fold.done:
        return _broken("the stream ended before message_stop", so_far)
    with contextlib.suppress(*BROKEN):
        async with asyncio.timeout(_LINGER):
            async for _ in chunks:
                pass
    return reply_of(fold.message, headers, streamed=True)


def _tell(so_far: _Exchange) -> None:
    headroom, usage = read_headroom(so_far.headers or {}), so_far.fold.usage
    if so_far.tell is not None and headroom is not None and usage is not None:
        so_far.tell(headroom, usage)


async def _fold(chunks: AsyncIterator[bytes], fold: MessageFold, begun: Callable[[], None]) -> None:
    """Read an answer to its end; `begun` is called once, when its input is counted."""
    parser, told, size = EventParser(), False, 0
    async for chunk in chunks:
        size = grown(size, chunk)
        for event in parser.feed(chunk):
            fold.add(event)
            if not told and fold.usage is not None:
                told = True
                begun()
        if fold.over:
            return


def _broken(why: str, so_far: _Exchange, *, sent: bool = True) -> ClaudeError:
    return failures.no_answer(why, so_far.headers, usage=so_far.fold.usage, sent=sent)


def _scrubbed(failure: ClaudeError, key: Key) -> ClaudeError:
    """A gateway may quote the key it refuses."""
    failure.args = (str(failure).replace(key.secret.get_secret_value(), "***"),)
    return failure


def _credential(key: Key) -> dict[str, str]:
    secret = key.secret.get_secret_value()
    return {"authorization": f"Bearer {secret}"} if key.header is Header.BEARER else {"x-api-key": secret}


def _beta_names(body: Body | None, key: Key) -> str:
    """Those of the prompt; an access token wants its own beside them, as Anthropic's SDK sends it (claude-api.md, 1.5)."""
    asked = _beta_header(body["betas"]) if body is not None and body.get("betas") else ""
    if key.header is not Header.BEARER or not key.is_access_token or OAUTH_BETA in asked:
        return asked
    return f"{asked},{OAUTH_BETA}" if asked else OAUTH_BETA


def _beta_header(betas: object) -> str:
    names = [betas] if isinstance(betas, str) else betas
    if not isinstance(names, list) or not all(
        isinstance(name, str) and _BETA.fullmatch(name) for name in names
    ):
        raise PromptRejected("betas: a list of names is needed")
    return ",".join(names)


def _lowered(response: Response) -> Headers:
    # One plain dict per reply, with names in lower case.
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.raw_headers}


def _without(body: Body, field_name: str) -> Body:
    if field_name not in body:
        return body
    return {name: value for name, value in body.items() if name != field_name}
