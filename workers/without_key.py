"""What becomes of the work that this worker has no key for: others go on with it, or it is paused.

A pause stops every worker, so the others are heard first. Where one of them can call, or can open what is encrypted,
nothing is paused and this worker stands back.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from promptmill.claude.keys import KeyRing
from promptmill.clock import Clock
from promptmill.errors import NoUsableKey, Unavailable
from promptmill.logs import get_logger, scrub
from promptmill.states import PausedBy
from promptmill.store.jobs import LoadedJob
from promptmill.store.unreadable import UnreadableJob
from workers.holding import Held, why_closed
from workers.other_keys import OtherKeys, StandingBack

log = get_logger(__name__)


@dataclass(slots=True)
class WithoutKey:
    """Decides between standing back and a pause; belongs to the worker's loop.

    Args:
        pause: writes a pause; the answer is when a person let go on since what was to be paused, if so.
        others: what the other workers tell; None where there are none to be heard.
    """

    keys: KeyRing
    clock: Clock
    pause: Callable[[Held], datetime | None]
    others: OtherKeys | None = None
    standing_back: StandingBack = field(default_factory=StandingBack)

    async def hold(self, job: LoadedJob, none_left: NoUsableKey) -> bool:
        """Pause the batch; at a spend limit every batch that calls where this job calls. False where others can call."""
        if await self._others_can_call(job):
            if none_left.everywhere:
                self.standing_back.begin()
            return False
        held = _held(job, none_left)
        if await self._pause(held) and held.by is PausedBy.KEY:
            await self._look_for_key(job)
        return True

    async def leave_closed(self, job: UnreadableJob) -> None:
        """Pause the batch of a job that no key here opens, unless another worker has that key."""
        if self.others is not None and await self.others.can_open(job.key_id):
            if self.standing_back.begin():  # said once for all the jobs that were taken before
                log.error("key_missing_here", batch_id=job.batch_id, key=job.key_id)
        else:
            await self._pause(Held(job.batch_id, None, why_closed(job.key_id), PausedBy.ENCRYPTION))

    def over(self) -> None:
        """There is a key to call with: jobs are taken as before."""
        if self.standing_back.in_vain:
            self.standing_back.over()

    async def _pause(self, held: Held) -> bool:
        """False where the database is away: then the next job does it."""
        try:
            went_on = await asyncio.to_thread(self.pause, held)
        except Unavailable as error:
            log.warning("batch_not_paused", batch_id=held.batch_id, error=str(error))
            return False
        if went_on is not None:
            self.keys.resumed(went_on)
        return True

    async def _look_for_key(self, job: LoadedJob) -> None:
        """A key that came while the batch was being paused, here or elsewhere, has let nothing go on yet."""
        with contextlib.suppress(NoUsableKey):
            self.keys.usable(job.model_group, now=self.clock.now())
            self.keys.on_held_in_vain()
            return
        if await self._others_can_call(job, anew=True):
            self.keys.on_held_in_vain()

    async def _others_can_call(self, job: LoadedJob, *, anew: bool = False) -> bool:
        if self.others is None:
            return False
        return await self.others.can_call(job.model_group, but=self.keys.at_rest, anew=anew)


def _held(job: LoadedJob, none_left: NoUsableKey) -> Held:
    """The batch for want of a key, or at a spend limit until it is lifted; everything at its endpoint if all keys rest."""
    why = scrub(none_left.brief)
    if not none_left.resting:
        return Held(job.batch_id, None, why, PausedBy.KEY)
    endpoint = job.endpoint if none_left.everywhere else None
    return Held(job.batch_id, endpoint, why, PausedBy.SPEND_CAP, none_left.until, none_left.since)
