"""docker-compose.yml without containers: this machine in the place of their network and file system.

Only what a container would give is replaced: host names, paths and ports. Commands, health checks, environments and
secrets are those of the file, read as compose reads them (test_compose_file.py compares that with the real compose).
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from dotenv import dotenv_values
from ruamel.yaml import YAML

from promptmill.embedded.postgres import find_programs
from promptmill.embedded.redis import find_server
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
FACTS: Mapping[str, Any] = YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))
SERVICES: Mapping[str, Any] = FACTS["services"]
PORTS = {"flower": "5555", "dashboard": "8788", "simulator": "8787", "prometheus": "9090"}
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?}")
OURS = frozenset(name for name, facts in SERVICES.items() if "build" in facts)
PUT_BEFORE = {"prometheus": ["prometheus"]}
"""What an image puts before the command of its service."""
INSIDE = os.environ.get("PROMPTMILL_TEST_IMAGE", "").split()
"""Words that run a command in our image, `{folder}` being shared with it; none: our services run on this machine."""
PSQL = [str(find_programs() / "psql"), *["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname"]]
PATIENCE = 60.0  # seconds for a program to be healthy; several programs may share two cores


def as_compose_fills_it_in(text: object, values: Mapping[str, str]) -> str:
    """`text` with its variables and its doubled dollars replaced."""
    filled = VARIABLE.sub(lambda match: values.get(match["name"]) or match["default"] or "", str(text))
    return filled.replace("$$", "$")


def make_secrets(folder: Path, **known: str) -> Path:
    """Secrets as a person makes them, below `folder`; `known` is in the environment."""
    secrets = folder / "secrets"
    environment = {"PATH": os.environ["PATH"], "MILL_SECRETS": str(secrets), **known}
    subprocess.run([ROOT / "ops/make-secrets"], env=environment, check=True, stdout=subprocess.DEVNULL)
    return secrets


@dataclass(frozen=True)
class Place:
    """What the services find here; `settings` is the file that MILL_SETTINGS names."""

    folder: Path
    settings: Path
    replacements: Mapping[str, str]

    @classmethod
    def at(cls, folder: Path, postgres_port: int, settings: Path) -> "Place":
        """A place below `folder`, with secrets of its own and a Postgres at this port."""
        ports = {inside: str(free_port()) for inside in PORTS.values()}
        redis_port = free_port()
        folder.mkdir()
        secrets = make_secrets(folder)
        for name in ("tmp", "data", "bin"):
            (folder / name).mkdir()
        for shared in ("", "tmp", "data", "secrets") if INSIDE else ():
            (folder / shared).chmod(0o777)  # the image's user is another
        (folder / "bin/pg_isready").symlink_to(find_programs() / "pg_isready")
        if client := shutil.which("valkey-cli") or shutil.which("redis-cli"):
            (folder / "bin/valkey-cli").symlink_to(client)
        return cls(
            folder,
            settings,
            {
                "@postgres:5432": f"@127.0.0.1:{postgres_port}",
                "5432": str(postgres_port),
                "redis:6379": f"127.0.0.1:{redis_port}",
                "exec valkey-server": f"cd '{folder}/data'; exec '{find_server()}' "
                f"--port {redis_port} --bind 127.0.0.1",
                "valkey-cli": f"valkey-cli -p {redis_port}",
                "simulator:": "127.0.0.1:",
                "0.0.0.0": "127.0.0.1",
                "/run/secrets": str(secrets),
                "/etc/promptmill": str(ROOT / "ops/redis"),
                "/etc/prometheus": str(folder / "prometheus"),
                "dashboard:": "127.0.0.1:",
                "tsdb.path=/prometheus": f"tsdb.path={folder}/data",
                "/data": f"{folder}/data",
                "/files": str(folder),
                "/tmp": str(folder / "tmp"),
                **ports,
            },
        )

    def set_up_postgres(self, server_url: str) -> None:
        """What the image of Postgres does with a new volume: the database, then its scripts in their order."""
        told = SERVICES["postgres"]
        database = told["environment"]["POSTGRES_DB"]
        inside = urlsplit(server_url)._replace(path=f"/{database}").geturl()
        subprocess.run([*PSQL, server_url, "--command", f"CREATE DATABASE {database}"], check=True)
        for each in sorted(told["configs"], key=lambda config: str(config["target"])):
            done = self.run_script(each["source"], inside)
            assert done.returncode == 0, done.stderr

    def run_script(self, config: str, url: str) -> subprocess.CompletedProcess[str]:
        """A config of the compose file, given to psql."""
        script = (ROOT / FACTS["configs"][config]["file"]).read_text(encoding="utf-8")
        return subprocess.run(
            [*PSQL, url], input=self.here(script), capture_output=True, text=True, check=False
        )

    def text(self, text: object) -> str:
        """`text` as compose would fill it in, and then as it must read here."""
        return self.here(as_compose_fills_it_in(text, {}))

    def here(self, text: str) -> str:
        """`text` with this machine's addresses and paths in place of the containers'."""
        theirs = re.compile("|".join(map(re.escape, self.replacements)))
        return theirs.sub(lambda match: self.replacements[match[0]], text)

    def set_up_prometheus(self) -> None:
        """Its files as they must read here, and a look at the page every second."""
        (self.folder / "prometheus").mkdir()
        for file in (ROOT / "ops/prometheus").iterdir():
            text = self.here(file.read_text(encoding="utf-8")).replace("_interval: 15s", "_interval: 1s")
            (self.folder / "prometheus" / file.name).write_text(text, encoding="utf-8")

    def environment(self, service: str) -> dict[str, str]:
        """What a service's processes find in their environment, beyond what their image says."""
        from_file = dotenv_values(self.settings) if "env_file" in SERVICES[service] else {}
        told = {**from_file, **SERVICES[service].get("environment", {})}
        return {name: self.text(value) for name, value in told.items()}

    def process(self, service: str, words: Sequence[str]) -> dict[str, Any]:
        """What a process of a service is started with."""
        told = self.environment(service)
        path = f"{self.folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
        here = {"PATH": path, "HOME": str(self.folder)}
        streams = {"cwd": self.folder, "stdin": subprocess.DEVNULL}
        if not INSIDE or service not in OURS:
            return {"args": words, "env": {**here, **told}, **streams}
        into = [word.format(folder=self.folder) for word in INSIDE]
        named = [f"{name}={value}" for name, value in told.items()]
        return {"args": [*into, "env", *named, *words], "env": here, **streams}

    def command(self, words: Sequence[str]) -> list[str]:
        """Words of a command, each as it must read here."""
        return [self.text(word) for word in words]

    def execute(self, service: str, *words: str) -> subprocess.CompletedProcess[str]:
        """What `docker compose exec SERVICE WORDS` does."""
        return subprocess.run(
            **self.process(service, words), capture_output=True, text=True, check=False, timeout=PATIENCE
        )

    def migrate(self) -> None:
        """The service that brings the tables to this version, to its end."""
        done = self.execute("migrate", *self.command(SERVICES["migrate"]["command"]))
        assert done.returncode == 0, done.stderr

    def is_healthy(self, service: str) -> bool:
        """What the service's own health check says."""
        kind, *words = SERVICES[service]["healthcheck"]["test"]
        words = self.command(words)
        return (
            self.execute(service, *(["sh", "-c", *words] if kind == "CMD-SHELL" else words)).returncode == 0
        )

    def log(self, service: str) -> str:
        """What the service has written so far."""
        return (self.folder / f"{service}.log").read_text(encoding="utf-8", errors="replace")

    @contextmanager
    def running(self, service: str) -> "Iterator[subprocess.Popen[bytes]]":
        """The service by its own command; killed at the end of the block."""
        with (
            (self.folder / f"{service}.log").open("wb") as log,
            subprocess.Popen(
                **self.process(
                    service, [*PUT_BEFORE.get(service, []), *self.command(SERVICES[service]["command"])]
                ),
                stdout=log,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()


def program_of(process: "subprocess.Popen[bytes]") -> psutil.Process:
    """The service's own process: behind the words of INSIDE, which hand no signal on, it is the last one."""
    found = psutil.Process(process.pid)
    while INSIDE and (children := found.children()):
        found = children[0]
    return found
