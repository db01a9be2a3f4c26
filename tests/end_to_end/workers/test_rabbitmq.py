"""RabbitMQ carries the ids instead of Redis: everything that was promised of Redis's queue holds.

A RabbitMQ is not among what Promptmill's users must have, so these tests are skipped where none is installed.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection
from kombu.exceptions import KombuError

from promptmill.broker import Ticket, celery_app, publish
from promptmill.clock import SystemClock
from promptmill.errors import Unavailable
from promptmill.routes import ANSWER_QUEUE
from promptmill.states import JobState
from promptmill.store import jobs
from promptmill.testing import a_batch, simulated_claude
from tests.ports import free_port
from workers.broker_queue import PATIENCE_S, ForeignQueue

Start = Callable[..., Any]
WaitUntil = Callable[..., None]

DEBIAN_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""What Debian's /usr/sbin/rabbitmq-server runs as a user of its own, who could not write into our folder."""
PROGRAM = str(DEBIAN_PROGRAM) if DEBIAN_PROGRAM.exists() else shutil.which("rabbitmq-server")

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(180),
    pytest.mark.skipif(PROGRAM is None, reason="no rabbitmq-server is installed, and Promptmill needs none"),
]


@dataclass
class Rabbit:
    """A RabbitMQ on a port of the loopback address; its data is in `folder`."""

    folder: Path
    ports: tuple[int, int, int]
    wait_until: WaitUntil
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """For PROMPTMILL_BROKER_URL."""
        return f"amqp://guest:guest@127.0.0.1:{self.ports[0]}//"

    @property
    def environment(self) -> dict[str, str]:
        """Everything in its folder, every port on the loopback address."""
        port, for_nodes, for_names = map(str, self.ports)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"test{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": port,
            "RABBITMQ_DIST_PORT": for_nodes,
            "RABBITMQ_MNESIA_BASE": str(self.folder),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": for_names,
        }

    def start(self) -> None:
        """Until it takes connections."""
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [PROGRAM or ""],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_until(self.answers, timeout=60)

    def signal(self, number: signal.Signals) -> None:
        """To it, and to everything it started."""
        if self.process is not None:
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it at once, with everything it started."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            with Connection(self.url, connect_timeout=2) as connection:
                connection.connect()
        except (KombuError, OSError):
            return False
        return True

    def forget_names(self) -> bool:
        """End its keeper of names, which has left its group; it goes by its port, where only ours listens."""
        command = ["epmd", "-kill"]
        return subprocess.run(command, env=self.environment, check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def rabbit(wait_until: WaitUntil) -> Iterator[Rabbit]:
    port, for_nodes, for_names = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="promptmill-rabbit-", ignore_cleanup_errors=True) as folder:
        rabbit = Rabbit(Path(folder), (port, for_nodes, for_names), wait_until)
        try:
            rabbit.start()
            yield rabbit
        finally:
            rabbit.kill()
            wait_until(rabbit.forget_names)  # it refuses while it has not noticed that the server has gone


def test_every_prompt_is_answered_once(start_mill: Start, sqlite_url: str, rabbit: Rabbit) -> None:
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_BROKER_URL=rabbit.url)
        batch = a_batch(mill.database, 300)
        for _ in range(2):
            mill.start_worker()
        assert mill.wait_for_end(batch.id).jobs[JobState.SUCCEEDED] == 300
        assert claude.ledger()["answered"] == {"1": 300}


def test_kill_9_of_a_worker_gives_its_ids_back(start_mill: Start, sqlite_url: str, rabbit: Rabbit) -> None:
    with simulated_claude(first_token_s=0.4) as claude:
        mill = start_mill(
            sqlite_url, claude, quick=True, PROMPTMILL_BROKER_URL=rabbit.url, PROMPTMILL_CONCURRENCY="10"
        )
        batch = a_batch(mill.database, 120)
        first, _ = [mill.start_worker() for _ in range(2)]
        mill.wait_until(lambda: mill.status(batch.id).jobs[JobState.SUCCEEDED] >= 20, timeout=60)
        first.kill()
        assert mill.wait_for_end(batch.id).jobs[JobState.SUCCEEDED] == 120
        twice = sum(count for times, count in claude.ledger()["answered"].items() if times != "1")
    assert twice <= 10


def test_sigterm_gives_back_what_waits_and_finishes_what_was_sent(
    start_mill: Start, sqlite_url: str, rabbit: Rabbit
) -> None:
    with simulated_claude(first_token_s=1.0) as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_BROKER_URL=rabbit.url, PROMPTMILL_CONCURRENCY="10")
        batch = a_batch(mill.database, 60)
        worker = mill.start_worker()
        mill.wait_until(lambda: claude.ledger()["in_flight"] == 10, timeout=60)
        worker.terminate()
        assert worker.wait(60) == 0
        assert mill.status(batch.id).jobs[JobState.RUNNING] == 0
        mill.start_worker()
        assert mill.wait_for_end(batch.id).jobs[JobState.SUCCEEDED] == 60
        assert claude.ledger()["answered"] == {"1": 60}


def test_messages_that_never_came_are_sent_again(start_mill: Start, sqlite_url: str, rabbit: Rabbit) -> None:
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude, quick=True, PROMPTMILL_BROKER_URL=rabbit.url)
        batch = a_batch(mill.database, 40)
        now = SystemClock().now()
        with mill.database.begin() as connection:  # what a dispatcher commits, and nobody publishes
            pending = jobs.select_pending(connection, batch.id, batch.model, 20, now)
            jobs.queue(connection, [each.id for each in pending], now)
        mill.start_worker()
        assert mill.wait_for_end(batch.id, timeout=90).jobs[JobState.SUCCEEDED] == 40
        assert claude.ledger()["answered"] == {"1": 40}
        mill.wait_until(lambda: "lost_ids_put_back" in mill.logs())


def test_killed_and_started_again_it_costs_time_only(
    start_mill: Start, sqlite_url: str, rabbit: Rabbit
) -> None:
    with simulated_claude(first_token_s=0.5) as claude:
        mill = start_mill(
            sqlite_url, claude, quick=True, PROMPTMILL_BROKER_URL=rabbit.url, PROMPTMILL_CONCURRENCY="10"
        )
        batch = a_batch(mill.database, 150)
        mill.start_worker()
        mill.wait_until(lambda: mill.status(batch.id).jobs[JobState.SUCCEEDED] >= 20, timeout=60)
        rabbit.kill()
        mill.wait_until(lambda: not claude.ledger()["in_flight"], timeout=60)
        rabbit.start()
        assert mill.wait_for_end(batch.id, timeout=90).jobs[JobState.SUCCEEDED] == 150
        assert claude.ledger()["answered"] == {"1": 150}


def test_ids_that_wait_in_a_worker_for_long_are_sent_out_once(
    start_mill: Start, sqlite_url: str, rabbit: Rabbit
) -> None:
    with simulated_claude(first_token_s=6) as claude:
        mill = start_mill(
            sqlite_url,
            claude,
            quick=True,
            PROMPTMILL_BROKER_URL=rabbit.url,
            PROMPTMILL_CONCURRENCY="4",
            PROMPTMILL_WORKER__PATIENCE_S="2",
        )
        batch = a_batch(mill.database, 12)
        mill.start_worker()
        assert mill.wait_for_end(batch.id, timeout=60).jobs[JobState.SUCCEEDED] == 12
        assert claude.ledger()["answered"] == {"1": 12}
    assert "lost_ids_put_back" not in mill.logs()


def test_who_asks_a_broker_that_stands_still_gives_up_and_finds_it_again(rabbit: Rabbit) -> None:
    app = celery_app("redis://127.0.0.1:1/0", rabbit.url)
    queue = ForeignQueue(app)
    publish(app, [Ticket("job_1", 1, "nightly", "claude-sonnet-5", 1)])
    rabbit.wait_until(lambda: queue.length() == 1)
    rabbit.signal(signal.SIGSTOP)
    begun = time.monotonic()
    for _ in range(2):  # on the connection that was kept, and on a new one
        with pytest.raises(Unavailable):
            queue.length()
    assert time.monotonic() - begun < 4 * PATIENCE_S  # connecting is tried twice
    rabbit.signal(signal.SIGCONT)
    assert queue.length() == 1
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.queue_delete(ANSWER_QUEUE)
    assert queue.length() == 0
    queue.close()
    app.close()
