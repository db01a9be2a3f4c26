"""A page that is served as a person would have it: `promptmill dashboard` over a folder with batches in it."""

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from promptmill.store.database import Database
from promptmill.testing import a_batch

TOKEN = "a-token-of-some-length"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A running page and its database, where a test writes into one."""

    url: str
    database: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, document: object = None, **headers: str) -> Answer:
        """Ask without a browser; underscores in names of headers stand for hyphens."""
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=60)
        body = None if document is None else json.dumps(document)
        sent = {"Content-Type": "application/json"} if body else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def batch(self, name: str, jobs: int = 3, **fields: Any) -> str:
        """A batch on which nobody works; its id."""
        return a_batch(self.database, jobs, name=name, **fields).id


@contextmanager
def served(cli: Any, *words: str, **extra: str) -> Iterator[Served]:
    """The page over the folder of a command line, until the end of the block."""
    database = Database.open(f"sqlite:///{cli.folder / '.promptmill' / 'promptmill.db'}")
    process = cli.start("dashboard", "--port", "0", *words, **extra)
    try:
        yield Served(address_of(process), database)
        process.terminate()
        assert process.wait(60) == 0, process.stderr.read()
        assert "Warning" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
        database.close()


def address_of(process: Any) -> str:
    said = process.stderr.readline()
    found = re.search(r"http://\S+:\d+", said)
    assert found, said + process.stderr.read()
    return found[0]
