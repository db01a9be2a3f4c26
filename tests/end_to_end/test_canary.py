"""Words planted as keys, passwords, prompts and answers; a whole stack at work; then all that was written is searched.

The idea: a secret is nowhere, a prompt or an answer is only where a person asked for it (`results`). With encryption
at rest on, the database file is searched like everything else. To add a place, add it to `Written`; to add a planted
word, add it to `SECRETS` or `TEXTS`.
"""

import base64
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.fernet import Fernet

import workers
from promptmill.testing import simulated_claude
from tests.end_to_end.conftest import NO_LIMITS, Cli
from tests.end_to_end.guarded import ROLES, ROOT, GuardedRedis, Programs, guarded_redis
from tests.ports import free_port

pytestmark = pytest.mark.timeout(240)


def canary(name: str) -> str:
    """No two the same, none like a credential that a filter knows, and none in this file as it stands."""
    return f"canary-{name}-{sum(map(ord, name)) * 7919:x}"


SECRETS: Mapping[str, str] = {
    name: canary(name)
    for name in ("key-one", "key-two", "admin-key", "flower", "page-token", "database", *ROLES)
}
TEXTS: Mapping[str, str] = {
    name: canary(name) for name in ("prompt", "system", "template", "field", "refusal", "broken-row")
}
MODEL = "claude-haiku-4-5"
FAULTS: list[dict[str, Any]] = [
    {"kind": "server_error", "status": 400, "text": "as-400"},
    {"kind": "server_error", "status": 500, "html": True, "text": "as-500", "times": 1},
    {"kind": "rate_limited", "text": "as-429", "times": 1, "retry_after_s": 1},
    {"kind": "overloaded", "text": "as-529", "times": 1, "retry_after_s": 1},
    {"kind": "reset", "text": "as-reset", "times": 1},
    {"kind": "lost_reply", "text": "as-lost", "times": 1},
    {"kind": "cut", "text": "as-cut", "times": 1},
    {"kind": "answer", "reply": TEXTS["refusal"], "stop_reason": "refusal", "text": "as-refusal"},
    {"kind": "answer", "stop_reason": "max_tokens", "text": "as-long"},
]
ENDS = ("fine", *(str(fault["text"]).removeprefix("as-") for fault in FAULTS))


@dataclass
class Written:
    """All that was written, by where it was found."""

    pieces: dict[str, bytes] = field(default_factory=dict)

    def add(self, where: str, what: bytes | str) -> None:
        """One more place, or more of one."""
        piece = what.encode() if isinstance(what, str) else what
        self.pieces[where] = self.pieces.get(where, b"") + piece

    def add_files(self, folder: Path) -> None:
        """Every file below a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.add(str(path.relative_to(folder)), path.read_bytes())

    def hits(self, words: Mapping[str, str]) -> list[tuple[str, str]]:
        """Which word was found where, plain or in a form in which it may travel."""
        return [
            (name, where)
            for where, piece in self.pieces.items()
            for name, word in words.items()
            if any(form in piece for form in forms_of(word))
        ]


def forms_of(word: str) -> set[bytes]:
    """Plain, quoted for a URL, and in base64 at each of the three places where it may begin."""
    plain = word.encode()
    shifted = {base64.b64encode(b"x" * n + plain)[4 * (n > 0) : -4] for n in range(3)}
    return {plain, quote(word, safe="").encode(), *shifted}


def test_the_search_finds_a_word_in_each_form() -> None:
    for text in ("a {} b", "ab {} b", "abc {} b"):
        written = Written()
        written.add("plain", text.format("a-planted-word"))
        written.add("packed", base64.b64encode(text.format("a-planted-word").encode()))
        assert len(written.hits({"it": "a-planted-word"})) == 2


def test_keys_are_nowhere_and_prompts_only_where_they_were_asked_for(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    assert Path(workers.__file__).is_relative_to(ROOT)  # and not of another checkout
    written, inputs, home = Written(), tmp_path / "inputs", tmp_path / "home"
    inputs.mkdir()
    passwords = {role: SECRETS[role] for role in ROLES}
    with (
        guarded_redis(tmp_path / "redis", wait_until, passwords) as redis,
        simulated_claude(text="echo", faults=FAULTS) as claude,
        everything_said_to(redis, written),
        traces_received(written) as traces,
    ):
        environment = {
            **NO_LIMITS,
            "PROMPTMILL_HOME": str(home),
            "PROMPTMILL_DATABASE_URL": f"sqlite:///{home}/promptmill.db",
            "PROMPTMILL_ENCRYPTION_KEYS_FILE": str(inputs / "encryption.txt"),
            "PROMPTMILL_KEYS_FILE": str(inputs / "keys.toml"),
            "PROMPTMILL_LOG_LEVEL": "DEBUG",
            "PROMPTMILL_TRACING": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "PROMPTMILL_WORKER__HEARTBEAT_S": "0.4",
            "PROMPTMILL_WORKER__DEAD_AFTER_S": "1.2",
            "ANTHROPIC_BASE_URL": claude.url,
            "PYTHONPATH": str(ROOT),
        }
        write_inputs(inputs)
        programs = Programs(tmp_path, environment)
        cli = Recorded(Cli(inputs, {**environment, "PROMPTMILL_REDIS_URL": redis.url("producer")}), written)
        cli("migrate")
        try:
            flower, page = start_all(programs, redis)
            batch = json.loads(cli("submit", "rows.jsonl", "--json", *OPTIONS))["batch_id"]
            second = programs.running.pop("second")
            second.kill()
            second.wait()
            cli("status", batch, "--watch")
            assert cli.state(batch) == "ended"
            answers = cli.quietly("results", batch, "--only", "succeeded").stdout
            look_at_everything(cli, batch)
            do_everything_wrong(cli, redis)
            wait_until(lambda: look_at_pages(flower, page, batch, written), timeout=20)
            look_at_processes(programs, written)
        finally:
            programs.stop()
        redis.admin.config_set("rdbcompression", "no")
        redis.admin.save()
    for log in tmp_path.glob("*.log"):
        written.add(log.name, log.read_bytes())
    written.add_files(home)
    written.add("dump.rdb", (tmp_path / "redis" / "dump.rdb").read_bytes())
    assert TEXTS["prompt"] in answers  # what was searched for did go through
    assert len(written.pieces) > 30, sorted(written.pieces)
    assert written.hits({**SECRETS, **TEXTS}) == []


OPTIONS = ("--model", MODEL, "--max-tokens", "400", "--template", "@template.txt", "--system", "@system.txt")


def write_inputs(folder: Path) -> None:
    """What a person has: these files are theirs, and not searched."""
    rows = [{"custom_id": end, "word": f"as-{end} {TEXTS['prompt']}", "more": TEXTS["field"]} for end in ENDS]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "template.txt").write_text(f"{TEXTS['template']} {{{{ word }}}} {{{{ more }}}}")
    (folder / "system.txt").write_text(TEXTS["system"])
    (folder / "broken.jsonl").write_text(f'{{"prompt": "{TEXTS["broken-row"]}"\n')
    (folder / "other.jsonl").write_text(json.dumps({"prompt": [TEXTS["broken-row"]]}) + "\n")
    (folder / "encryption.txt").write_text(Fernet.generate_key().decode() + "\n")
    (folder / "keys.toml").write_text(
        "".join(
            f'[[key]]\nlabel = "{name}"\naccount = "{name}"\nkey = "{SECRETS[name]}"\n'
            for name in ("key-one", "key-two")
        )
    )
    (folder / "broken-keys.toml").write_text(f'[[key]]\nlabel = "x"\nkey = "{SECRETS["key-one"]}\n')
    for secret in folder.glob("*keys.toml"):
        secret.chmod(0o600)


def start_all(programs: Programs, redis: GuardedRedis) -> tuple[int, int]:
    """Two workers, beat, Flower and the page; the ports of the last two."""
    flower, page = free_port(), free_port()
    for name in ("first", "second"):
        words = ("worker", "-n", f"{name}@test", "-l", "DEBUG")
        programs.start(name, "-A", "workers.app", *words, PROMPTMILL_REDIS_URL=redis.url("worker"))
    programs.start(
        "beat",
        "-A",
        "workers.app",
        "beat",
        "--pidfile=",
        "-l",
        "DEBUG",
        PROMPTMILL_REDIS_URL=redis.url("beat"),
    )
    programs.start(
        "flower", "-A", "workers.app", "flower", "--address=127.0.0.1", f"--port={flower}", "--logging=debug",
        PROMPTMILL_REDIS_URL=redis.url("flower"), FLOWER_BASIC_AUTH=f"a:{SECRETS['flower']}",
    )  # fmt: skip
    programs.start(
        "page", "dashboard", "--port", str(page), module="producers.cli",
        PROMPTMILL_REDIS_URL=redis.url("dashboard"), PROMPTMILL_DASHBOARD_TOKEN=SECRETS["page-token"],
    )  # fmt: skip
    return flower, page


@dataclass(frozen=True)
class Recorded:
    """The command line; what it says is among what is searched."""

    cli: Cli
    written: Written

    def __call__(self, *words: str, **environment: str) -> str:
        """Type a command; its output."""
        done = self.cli(*words, timeout=60, stdin="", **environment)
        self.written.add(f"$ {' '.join(words[:2])}", done.stdout + done.stderr)
        return done.stdout

    def quietly(self, *words: str) -> Any:
        """Without a record: for what a person asks to see."""
        return self.cli(*words)

    def state(self, batch: str) -> str:
        """Where a batch stands."""
        state: str = json.loads(self("status", batch, "--json"))["state"]
        return state


def look_at_everything(cli: Recorded, batch: str) -> None:
    """Each command that only looks."""
    for words in (
        *(["status", batch], ["list", "--json"], ["audit", batch], ["limits"], ["limits", "--prometheus"]),
        *(["doctor"], ["doctor", "--json"], ["keys"], ["keys", "--json"], ["schedule", "list"]),
        *(["estimate", "rows.jsonl", *OPTIONS], ["purge", batch, "--dry-run"]),
    ):
        cli(*words)
    cli("limits", "probe", ANTHROPIC_ADMIN_KEY=SECRETS["admin-key"])


def do_everything_wrong(cli: Recorded, redis: GuardedRedis) -> None:
    """Wrong calls, each of which has a secret or a prompt at hand; with the traceback, where there is one."""
    cli("submit", "broken.jsonl", *OPTIONS[:2])
    cli("submit", "other.jsonl", *OPTIONS[:2])
    cli("submit", "rows.jsonl", *OPTIONS[:4], "--template", "{{ missing }}", PROMPTMILL_DEBUG="1")
    cli("submit", "rows.jsonl", *OPTIONS[:2], "--schema", "no.such:Model", PROMPTMILL_DEBUG="1")
    gone = f"://x:{SECRETS['database']}@127.0.0.1:1/x"
    for scheme in ("postgresql", "mysql", "postgresql+nothing"):
        cli("list", PROMPTMILL_DATABASE_URL=scheme + gone, PROMPTMILL_DEBUG="1")
    cli("limits", PROMPTMILL_REDIS_URL="redis" + gone, PROMPTMILL_DEBUG="1")
    for name, address in odd_addresses(SECRETS["database"]):
        cli(
            "list" if name == "PROMPTMILL_DATABASE_URL" else "doctor", **{name: address}, PROMPTMILL_DEBUG="1"
        )
    cli(
        "doctor", PROMPTMILL_REDIS_URL=redis.url("worker").replace("worker:", "nobody:"), PROMPTMILL_DEBUG="1"
    )
    cli("doctor", PROMPTMILL_BROKER_URL="amqp" + gone, PROMPTMILL_DEBUG="1")
    cli("doctor", PROMPTMILL_BROKER_URL=SECRETS["database"], PROMPTMILL_DEBUG="1")
    cli("keys", PROMPTMILL_KEYS_FILE="broken-keys.toml", PROMPTMILL_DEBUG="1")
    cli("doctor", PROMPTMILL_KEYS_FILE="broken-keys.toml", ANTHROPIC_API_KEY=SECRETS["key-two"])


def odd_addresses(word: str) -> Iterator[tuple[str, str]]:
    """A password where people put it as well, or not escaped."""
    for field_name in ("password", "sslpassword"):
        yield "PROMPTMILL_DATABASE_URL", f"postgresql://x@127.0.0.1:1/x?{field_name}={word}"
    for address in (f"redis://127.0.0.1:1/0?password={word}", f"redis://:p@{word}@127.0.0.1:1/0"):
        yield "PROMPTMILL_REDIS_URL", address
    yield "PROMPTMILL_BROKER_URL", f"amqp://x:p/{word}@127.0.0.1:1//"


def look_at_processes(programs: Programs, written: Written) -> None:
    """What anybody on the machine can read of a process: its arguments."""
    for name, process in programs.running.items():
        written.add(f"arguments of {name}", Path(f"/proc/{process.pid}/cmdline").read_bytes())


def look_at_pages(flower: int, page: int, batch: str, written: Written) -> bool:
    """Every page of Flower and of ours, as somebody who may see them; False while one is not there."""
    login = base64.b64encode(f"a:{SECRETS['flower']}".encode()).decode()
    paths: tuple[str, ...] = ("/tasks", "/api/tasks", "/workers", "/worker/first@test", "/broker", "/metrics")
    found = [fetched(flower, path, f"Basic {login}", written, "flower") for path in paths]
    token = f"Bearer {SECRETS['page-token']}"
    parts = ("overview", "history", "batches", "limits", "keys", "workers", "schedules", f"batches/{batch}")
    paths = ("/", f"/batch/{batch}", "/metrics", "/healthz", *(f"/api/{part}" for part in parts))
    found += [fetched(page, path, token, written, "page") for path in paths]
    fetched(page, "/no-such-page", token, written, "page")
    return all(found)


def fetched(port: int, path: str, login: str, written: Written, whose: str) -> bool:
    """Whether there is such a page; what it says is kept."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": login})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            written.add(f"{whose} {path}", answer.read() + str(answer.headers).encode())
    except urllib.error.HTTPError as error:
        with error:
            written.add(f"{whose} {path}", error.read() + str(error.headers).encode())
        return False
    except OSError:
        return False
    return True


@contextmanager
def everything_said_to(redis: GuardedRedis, written: Written) -> Iterator[None]:
    """Each command that Redis is given meanwhile, with its arguments: queue, events, limiter, what is gone again too."""
    with socket.create_connection(("127.0.0.1", redis.port)) as ear:
        ear.sendall(b"AUTH admin admin\r\nMONITOR\r\n")

        def listen() -> None:
            with suppress(OSError):
                while heard := ear.recv(65_536):
                    written.add("redis", heard)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            with suppress(OSError):
                ear.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert b"promptmill" in written.pieces["redis"]


@contextmanager
def traces_received(written: Written) -> Iterator[str]:
    """Where traces may be sent."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            written.add("traces", self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
