"""Beat's scheduler: RedBeat, filled from the `schedule` table again and again.

The one idea: it only wakes workers. What is owed they read from the table, so an entry in Redis that is lost, old or
there twice is worth nothing more than time, and is made anew at the next look. While no worker lives nobody is woken,
else the wake-ups of a weekend would lie in the queue on Monday.
"""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from celery.schedules import BaseSchedule, schedstate
from celery.signals import beat_init
from kombu.exceptions import OperationalError
from redbeat.decoder import (  # type: ignore[import-untyped]  # it ships no types
    RedBeatJSONDecoder,
    RedBeatJSONEncoder,
)
from redbeat.schedulers import (  # type: ignore[import-untyped]  # likewise
    RedBeatScheduler,
    RedBeatSchedulerEntry,
    acquire_distributed_beat_lock,
    get_redis,
)
from redis.exceptions import LockError, RedisError

from promptmill import settings
from promptmill.errors import PromptmillError, Unavailable
from promptmill.ids import new_id
from promptmill.logs import get_logger, scrub
from promptmill.recurrence import Timetable
from promptmill.routes import ANSWER_QUEUE, RUN_DUE_TASK
from promptmill.runtime import open_database
from promptmill.store import schedules, workers
from promptmill.store.database import Database, database_now
from promptmill.store.schedules import Waking
from workers import pulse

log = get_logger(__name__)

# The scheduler asks for its lock when it ticks: here a Redis that is away would be logged as a handler that broke.
beat_init.disconnect(acquire_distributed_beat_lock)

LOOK_S: Final = 3.0
"""Between two looks at the table, at least. With beat's longest sleep, of 2 s, a change is seen within 5 s."""
AGAIN_S: Final = 1.0
"""Until Redis is tried again."""
SAY_S: Final = 30.0
"""Between two lines that say that it still waits."""
_NAME: Final = "schedule:"
_TYPE: Final = "promptmill.timetable"


class DueTimes(BaseSchedule):
    """A Timetable as Celery asks for one."""

    def __init__(self, timetable: Timetable, **options: Any) -> None:
        super().__init__(**options)
        self.timetable = timetable

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether there was a due time since, and the seconds to the next."""
        now = datetime.now(UTC)
        first, following = self.timetable.after(last_run_at), self.timetable.after(now)
        rest = 0.0 if following is None else (following - now).total_seconds()
        return schedstate(first is not None and first <= now, rest)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta | None:  # type: ignore[override]  # the stubs know no end
        """From the last time to the next due one: RedBeat adds the two."""
        due = self.timetable.after(last_run_at)
        return None if due is None else due - last_run_at

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DueTimes) and self.timetable == other.timetable

    def __hash__(self) -> int:
        return hash(self.timetable)


class _Encoder(RedBeatJSONEncoder):  # type: ignore[misc]  # RedBeat has no types
    def default(self, obj: Any) -> Any:
        if not isinstance(obj, DueTimes):
            return super().default(obj)
        times = obj.timetable
        return {
            "__type__": _TYPE,
            "cron": times.cron,
            "every_s": times.every_s,
            "timezone": times.timezone,
            "starts_at": times.starts_at.isoformat(),
        }


class _Decoder(RedBeatJSONDecoder):  # type: ignore[misc]  # RedBeat has no types
    def dict_to_object(self, d: dict[str, Any]) -> Any:
        if d.get("__type__") != _TYPE:
            return super().dict_to_object(d)
        starts_at = datetime.fromisoformat(d["starts_at"])
        times = Timetable(cron=d["cron"], every_s=d["every_s"], timezone=d["timezone"], starts_at=starts_at)
        return DueTimes(times)


class Entry(RedBeatSchedulerEntry):  # type: ignore[misc]  # RedBeat has no types
    """An entry whose schedule is one of ours; RedBeat names its own decoder and encoder."""

    @staticmethod
    def decode_definition(definition: str) -> Any:
        """Read what `save` has written."""
        return json.loads(definition, cls=_Decoder)

    def save(self) -> "Entry":
        """Write it, and when it was last due unless that is there."""
        definition = {
            "name": self.name,
            "task": self.task,
            "args": self.args,
            "kwargs": self.kwargs,
            "options": self.options,
            "schedule": self.schedule,
            "enabled": self.enabled,
        }
        meta = {"last_run_at": self.last_run_at}
        with get_redis(self.app).pipeline() as pipe:
            pipe.hset(self.key, "definition", json.dumps(definition, cls=_Encoder))
            pipe.hsetnx(self.key, "meta", json.dumps(meta, cls=_Encoder))
            pipe.zadd(self.app.redbeat_conf.schedule_key, {self.key: self.score})
            pipe.execute()
        return self


class Scheduler(RedBeatScheduler):  # type: ignore[misc]  # RedBeat has no types
    """The `beat_scheduler` of Promptmill."""

    Entry = Entry

    def __init__(self, *args: Any, lazy: bool = False, **options: Any) -> None:
        self._resources = ExitStack()
        self._database: Database | None = None
        self._filled: Mapping[str, datetime] = {}
        self._looked_at = float("-inf")
        self._somebody_works = True
        self._is_set_up = False
        self._waits_since: float | None = None
        self._said_at = float("-inf")
        super().__init__(*args, lazy=lazy, **options)

    def setup_schedule(self) -> None:
        """Nothing yet: Redis may be away while this is made. The first tick does it."""

    def tick(self, *args: Any, **options: Any) -> float:
        """Wake whom it is time to wake; the seconds until the next call. Redis may be away, or have lost all."""
        try:
            if not self._is_set_up:
                super().setup_schedule()
                self._is_set_up = True
            if self.lock is None:  # type: ignore[has-type]  # RedBeat has no types
                acquire_distributed_beat_lock(_Holder(self))  # waits while another beat has it
            if time.monotonic() - self._looked_at >= LOOK_S:
                self._looked_at = time.monotonic()
                self._fill()
            rest = float(super().tick(*args, **options))
        except LockError as error:
            log.warning("beat_lost_its_lock", error=type(error).__name__)
            self._filled, self.lock = {}, None
            return 0.0
        except (RedisError, OperationalError) as error:
            self._say_that_it_waits(error)
            return AGAIN_S
        if self._waits_since is not None:
            log.info("beat_goes_on", waited_s=round(time.monotonic() - self._waits_since))
            self._waits_since = None
        pulse.touch()
        return rest

    def apply_async(self, entry: Any, producer: Any = None, **_: Any) -> None:
        """Send a wake-up, if there is anybody to hear it.

        Made here, because Celery's own would bring the time limits of the task along, and workers refuse a message that
        gives instructions.
        """
        self.reserve(entry)  # first, so that one that cannot be sent is not sent for ever
        if not self._somebody_works:
            return
        amqp = self.app.amqp
        message = amqp.as_task_v2(new_id("wake"), entry.task, args=entry.args, kwargs={})
        (producer or self.producer).publish(
            message.body,
            exchange="",
            routing_key=ANSWER_QUEUE,
            serializer="json",
            headers=message.headers,
            declare=[amqp.queues[ANSWER_QUEUE]],
            **message.properties,
        )

    def close(self) -> None:
        """Give the lock and the database back."""
        with contextlib.suppress(RedisError):
            super().close()
        self._resources.close()

    def _say_that_it_waits(self, error: Exception) -> None:
        now = time.monotonic()
        if self._waits_since is None:
            self._waits_since, self._said_at = now, float("-inf")
        if now - self._said_at >= SAY_S:
            self._said_at = now
            waited_s = round(now - self._waits_since)
            log.warning(
                "beat_waits_for_redis", error=type(error).__name__, why=scrub(str(error)), waited_s=waited_s
            )

    def _fill(self) -> None:
        """Redis has an entry for every active schedule, and none besides."""
        try:
            rows = self._active()
        except (Unavailable, PromptmillError) as error:
            log.warning("beat_waits_for_the_database", error=type(error).__name__, why=scrub(str(error)))
            return
        there = self._there()
        wanted = {_NAME + row.name: row for row in rows}
        for name, row in wanted.items():
            if name not in there or self._filled.get(name) != row.changed_at:
                self._write(name, row, anew=name in there)
        for name in there - wanted.keys():
            self.Entry(name, app=self.app).delete()
        self._filled = {name: row.changed_at for name, row in wanted.items()}

    def _write(self, name: str, row: Waking, *, anew: bool) -> None:
        due_times = DueTimes(row.timetable, app=self.app)
        # Just before what is owed next, so that it is due then, also when that is over.
        last = (row.next_due or row.changed_at) - timedelta(seconds=1)
        entry = self.Entry(
            name, RUN_DUE_TASK, due_times, args=[row.name],
            last_run_at=last, app=self.app,
        )  # fmt: skip
        if anew:
            entry.delete()
        entry.save()

    def _there(self) -> set[str]:
        prefix = self.app.redbeat_conf.key_prefix
        keys = get_redis(self.app).zrange(self.app.redbeat_conf.schedule_key, 0, -1)
        names = (key.removeprefix(prefix) for key in keys)
        return {name for name in names if name.startswith(_NAME)}

    def _active(self) -> Sequence[Waking]:
        if self._database is None:
            # Times alone are read here, so beat is given no keys.
            opened = open_database(settings.load(), reads_texts=False)
            self._database = self._resources.enter_context(opened)
        with self._database.read() as conn:
            self._somebody_works = workers.count_live(conn, database_now(conn)) > 0
            return schedules.wakings(conn)


class _Holder:
    """What RedBeat's function for the lock looks at: the sender of a signal, of which it wants the scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
