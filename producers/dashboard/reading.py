"""What is read: the documents, and the stream of them.

The one idea: a page that is open holds one stream and is sent what has changed; where streams do not get through, it asks
for the same documents now and then.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from aiohttp import web

from producers.dashboard.feed import Feed, Published, TooMany, encoded
from producers.dashboard.gate import GATE, refused

FEED = web.AppKey("feed", Feed)
Exposition = Callable[[], bytes]
EXPOSITION: web.AppKey[Exposition] = web.AppKey("exposition")

MOST_STREAMS = 100
AGAIN_MS = 1000
"""After which a browser whose stream has broken asks for it again."""
BEAT_S = 2.0
"""The longest for which a stream is silent, whether or not there is news."""
SLOWEST_S = 30.0
"""Seconds in which a page must have taken what it was sent."""


async def overview(request: web.Request) -> web.Response:
    """`GET /api/overview`: all of the first page."""
    found = await _newest(request)
    return _json(found, found.overview)


async def history(request: web.Request) -> web.Response:
    """`GET /api/history`: see `history.History`."""
    found = await _newest(request)
    return _json(found, found.history)


async def part(request: web.Request) -> web.Response:
    """`GET /api/batches`, `/api/limits`, `/api/workers`, `/api/keys`, `/api/schedules`: one part of the overview."""
    found = await _newest(request)
    return _json(found, encoded(json.loads(found.overview)[request.path.rpartition("/")[2]]))


async def batch(request: web.Request) -> web.Response:
    """`GET /api/batches/NAME`: all of one batch."""
    name = request.match_info["name"]
    found = await _newest(request, name)
    body = found.batches[name]
    if not body.startswith(b'{"error"'):
        return _json(found, body)
    return _json(found, body, status=503 if json.loads(body).get("away") else 404)


async def metrics(request: web.Request) -> web.Response:
    """`GET /metrics`: Prometheus' text format."""
    body = await asyncio.to_thread(request.app[EXPOSITION])
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def live(request: web.Request) -> web.StreamResponse:
    """`GET /api/live[?batch=NAME]`: the documents again and again, as server-sent events."""
    feed, name = request.app[FEED], request.query.get("batch")
    if feed.watchers >= MOST_STREAMS:
        raise refused(web.HTTPServiceUnavailable, f"{MOST_STREAMS} pages are open already")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    with suppress(ConnectionError, TimeoutError), _watching(feed, name):
        await response.prepare(request)
        await response.write(b"retry: %d\n\n" % AGAIN_MS)
        await _Stream(response.write, name).send(feed, lambda: request.app[GATE].may_read(request))
    return response


@contextmanager
def _watching(feed: Feed, name: str | None) -> Iterator[None]:
    try:
        with feed.watching(name):
            yield
    except TooMany:
        raise _too_many() from None


class _Stream:
    """Sends each document when it differs from the one that was sent last."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]], batch: str | None) -> None:
        self._write = write
        self._batch = batch
        self._sent: dict[str, bytes] = {}

    async def send(self, feed: Feed, may_go_on: Callable[[], bool]) -> None:
        number = 0
        while may_go_on() and not feed.is_ending:
            events: list[bytes] = []
            try:
                published = await feed.after(number, self._batch, within_s=BEAT_S)
                number = published.number
                events = self._changed(published)
            except TimeoutError:
                pass  # A look takes longer than that: the line is alive all the same.
            await asyncio.wait_for(self._write(b"".join([_tick(feed), *events])), SLOWEST_S)

    def _changed(self, published: Published) -> list[bytes]:
        documents = {"overview": published.overview, "history": published.history}
        if self._batch is not None:
            documents["batch"] = published.batches[self._batch]
        changed = {name: body for name, body in documents.items() if self._sent.get(name) != body}
        self._sent |= changed
        return [b"event: %s\ndata: %s\n\n" % (name.encode(), body) for name, body in changed.items()]


async def _newest(request: web.Request, name: str | None = None) -> Published:
    try:
        return await request.app[FEED].newest(name)
    except TooMany:
        raise _too_many() from None
    except TimeoutError:
        raise refused(
            web.HTTPServiceUnavailable, "nothing could be seen in time; the page's log says why"
        ) from None


def _too_many() -> web.HTTPException:
    return refused(web.HTTPServiceUnavailable, "the pages of too many batches are open")


def _tick(feed: Feed) -> bytes:
    """How old what was seen last is, and how often it is looked now; also when nothing has changed."""
    age = None if feed.last is None else round(feed.last.age_s, 1)
    return b"event: tick\ndata: %s\n\n" % encoded({"age_s": age, "every_s": round(feed.every_s, 1)})


def _json(found: Published, body: bytes, status: int = 200) -> web.Response:
    """The header says how many seconds ago it was seen."""
    headers = {"Age": f"{found.age_s:.0f}"}
    return web.Response(
        body=body, status=status, content_type="application/json", charset="utf-8", headers=headers
    )
