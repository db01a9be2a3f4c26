"""The files of the page, read once: they are small, and none is looked for by a name that somebody sends."""

import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources

from aiohttp import web

_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class File:
    """One file; `tag` changes with its content."""

    content: bytes
    packed: bytes
    type: str
    tag: str

    def answer(self, request: web.Request) -> web.Response:
        """The file, or that the browser has it already."""
        headers = {"ETag": f'"{self.tag}"', "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if any(each.value == self.tag for each in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        packs = "gzip" in request.headers.get("Accept-Encoding", "")
        if packs:
            headers["Content-Encoding"] = "gzip"
        body = self.packed if packs else self.content
        return web.Response(body=body, content_type=self.type, charset="utf-8", headers=headers)


def load() -> dict[str, File]:
    """Every file of the page by its name."""
    folder = resources.files("producers.dashboard") / "static"
    return {
        entry.name: _file(entry.name, entry.read_bytes())
        for entry in folder.iterdir()
        if "." + entry.name.rpartition(".")[2] in _TYPES
    }


def _file(name: str, content: bytes) -> File:
    return File(
        content=content,
        packed=gzip.compress(content, mtime=0),
        type=_TYPES["." + name.rpartition(".")[2]],
        tag=hashlib.sha256(content).hexdigest()[:16],
    )
