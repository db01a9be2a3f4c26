"""A Redis with the users of ops/redis/users.acl.example, and the programs of a whole stack, each as its own user."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from promptmill.embedded.redis import find_server
from tests.ports import free_port
from tests.warm.popen import WarmPopen

ROOT = Path(__file__).parents[2]
ACL = ROOT / "ops" / "redis" / "users.acl.example"
ROLES = ("worker", "beat", "producer", "dashboard", "flower")
SURROUNDINGS = (
    "PROMPTMILL_",
    "ANTHROPIC_",
    "CLAUDE_KEY",
    "DATABASE_URL",
    "RATE_LIMIT",
    "REDIS_URL",
    "FLOWER_",
)

Wait = Callable[..., None]


@dataclass(frozen=True)
class GuardedRedis:
    """Where it is, who may come in, and an eye on what was denied."""

    port: int
    passwords: Mapping[str, str]
    admin: "Redis"

    def url(self, role: str) -> str:
        """The address as one of the users."""
        return f"redis://{role}:{self.passwords[role]}@127.0.0.1:{self.port}/0"

    def denied(self) -> list[tuple[str, str, str]]:
        """User, reason and command (or key, or channel) of all that was refused."""
        told: list[dict[str, Any]] = self.admin.acl_log()
        return sorted({(each["username"], each["reason"], each["object"]) for each in told})


@contextmanager
def guarded_redis(folder: Path, wait_until: Wait, passwords: Mapping[str, str]) -> Iterator[GuardedRedis]:
    """Start one whose users have these passwords in place of the example's."""
    text = ACL.read_text(encoding="utf-8")
    for role in ROLES:
        assert f">change-me-{role}" in text
        text = text.replace(f">change-me-{role}", f">{passwords[role]}")
    folder.mkdir(parents=True)
    users = folder / "users.acl"
    users.write_text(text + "user admin on >admin ~* &* +@all\n", encoding="utf-8")
    port = free_port()
    words = ["--port", str(port), "--bind", "127.0.0.1", "--aclfile", str(users), "--save", ""]
    words += ["--dir", str(folder)]
    server = subprocess.Popen([find_server(), *words], stdout=subprocess.DEVNULL)
    try:
        with Redis(port=port, username="admin", password="admin") as admin:
            wait_until(lambda: _answers(admin))
            yield GuardedRedis(port, passwords, admin)
    finally:
        server.kill()
        server.wait()


def _answers(client: "Redis") -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


@dataclass
class Programs:
    """The processes of a stack, each with a file of what it wrote."""

    folder: Path
    environment: Mapping[str, str]
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, name: str, *words: str, module: str = "celery", **environment: str) -> None:
        """`python -m MODULE WORDS`; what it writes goes to NAME.log."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(SURROUNDINGS)}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = WarmPopen(
                [sys.executable, "-m", module, *words],
                cwd=self.folder,
                env={**kept, **self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def logs(self) -> str:
        """All that was written so far."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        """Politely, then not."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()
