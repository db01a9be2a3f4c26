"""The leader of a worker process, wired: what it sends out, what it takes back, and what it does now and then.

The idea to keep in mind: every process has one, made alike; `workers.leadership` says whose turn it is.
"""

import random
from collections.abc import Callable, Mapping
from functools import partial

from promptmill.broker import publish
from promptmill.retention import Retention
from promptmill.retries import after_loss
from promptmill.states import JobState
from workers.accounts import GroupLimits
from workers.dispatcher import Dispatcher
from workers.heartbeat import Heartbeat
from workers.leader import Leader
from workers.leadership import Leadership
from workers.notices import Herald
from workers.parts import Parts
from workers.reaper import Reaper
from workers.upkeep import Upkeep


def leader_of(
    parts: Parts,
    heartbeat: Heartbeat,
    *,
    limits_of: Callable[[str], GroupLimits],
    lost: Callable[[Mapping[str, JobState]], None],
) -> Leader:
    """The leader of a process; not begun.

    Args:
        parts: what the process is made of.
        heartbeat: knows how long beats have gone through.
        limits_of: what the limiter knows of a model group.
        lost: told how the jobs of dead processes stand.
    """
    runtime = parts.runtime
    return Leader(
        leadership=Leadership(parts.redis, parts.worker_id, runtime.endpoint_name),
        dispatcher=_dispatcher(parts, limits_of),
        reaper=_reaper(parts, heartbeat, lost),
        upkeep=_upkeep(parts),
        redis_url=runtime.redis_url,
        clock=parts.clock,
        wake_recurring=parts.recurring.wake,
    )


def _dispatcher(parts: Parts, limits_of: Callable[[str], GroupLimits]) -> Dispatcher:
    return Dispatcher(
        database=parts.runtime.database,
        redis=parts.redis,
        publish=partial(publish, parts.app),
        limits_of=limits_of,
        experience_of=parts.experiences.of,
        endpoint=parts.runtime.endpoint_name,
        clock=parts.clock,
    )


def _reaper(parts: Parts, heartbeat: Heartbeat, lost: Callable[[Mapping[str, JobState]], None]) -> Reaper:
    worker = parts.runtime.settings.worker
    return Reaper(
        database=parts.runtime.database,
        present=parts.queue.ids,
        broker_now=parts.hands.now,
        hands=parts.hands.of,
        clock=parts.clock,
        steady_for=heartbeat.steady_for,
        after_loss=partial(
            after_loss,
            max_losses=worker.max_losses,
            rng=random.Random(),  # noqa: S311  # jitter, not a secret
        ),
        found=parts.put_right.note,
        lost=lost,
        settle_s=2 * worker.heartbeat_s,
        taken_for=worker.patience_s + worker.dead_after_s,
        dead_after=worker.dead_after_s,
    )


def _upkeep(parts: Parts) -> Upkeep:
    runtime, kept = parts.runtime, parts.runtime.settings.retention
    herald = Herald(runtime.database, runtime.webhook_secrets(), runtime.settings.webhook.allowed)
    days = Retention(kept.prompts_days, kept.answers_days, kept.everything_days)
    return Upkeep(runtime.database, herald, days, parts.clock)
