"""The algorithm of one pool: a mirror of the server's buckets behind a pacer, in plain Python.

`LocalLimiter` runs on it, and the Lua scripts are compared with it field by field. Time is an argument.
It knows no jobs and no batches: first come, first served.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from promptmill.dimensions import DIMENSIONS
from promptmill.limits import corrections as learning
from promptmill.limits.desk import Answer, Ask, Denial, Penalty, Pulse, Release, Report, Settlement
from promptmill.limits.line import Line, due_after, gap, others_in_line
from promptmill.limits.planning import Plan, commit, plan
from promptmill.limits.policy import MINUTE, Ceilings, Pacing
from promptmill.limits.rates import (
    adopt_ceilings,
    learn_limits,
    learn_probed,
    recover,
    restart_when_cold,
    roll_minute,
)
from promptmill.limits.records import (
    INPUT,
    PoolRecord,
    Reservation,
    ceilings_per_second,
    fresh_record,
)


@dataclass(slots=True)
class _Stop:
    """The first ask that was not granted."""

    plan: Plan
    ask: Ask
    too_large: int | None


@dataclass(slots=True)
class Mirror:
    """One pool's record with its permits, by process, and the heartbeats of those processes."""

    record: PoolRecord
    pacing: Pacing
    permits: dict[str, dict[str, Reservation]] = field(default_factory=dict)
    expired: dict[str, dict[str, Reservation]] = field(default_factory=dict)
    processes: dict[str, float] = field(default_factory=dict)

    @classmethod
    def fresh(cls, now: float, ceilings: Ceilings, pacing: Pacing) -> "Mirror":
        """A pool nobody has used yet."""
        return cls(fresh_record(now, ceilings, pacing), pacing)

    def acquire(self, process: str, asks: Sequence[Ask], ceilings: Ceilings, now: float) -> Answer:
        """Grant a prefix of the asks; what is left waits in line."""
        pacing = self.pacing
        if self.record.moment > now + pacing.horizon + pacing.clock_back:
            self.record = fresh_record(now, ceilings, pacing)  # the clock went back
        record = self.record
        self.processes[process] = now
        adopt_ceilings(record, ceilings_per_second(ceilings), now, pacing)
        restart_when_cold(record, now, pacing)
        roll_minute(record, now)
        recover(record, now, pacing)
        ahead, behind = others_in_line(record, process, now, pacing)
        if not asks:
            record.line = ahead + behind
            return Answer((), None, self.pulse(now))
        if ahead:
            return self._wait_behind(process, ahead, behind, now)
        waits, stop = self._grant(process, asks, now)
        record.line = behind
        denial = self._deny(process, stop, now, served=bool(waits)) if stop else None
        return Answer(tuple(waits), denial, self.pulse(now))

    def _grant(self, process: str, asks: Sequence[Ask], now: float) -> tuple[list[float], _Stop | None]:
        permits = self.permits.setdefault(process, {})
        waits: list[float] = []
        for ask in asks:
            amounts = list(ask.amounts)
            outcome = plan(self.record, amounts, now, self.pacing)
            too_large = self._too_large(amounts)
            wait = outcome.start - now
            if too_large is not None or wait > min(self.pacing.horizon, ask.patience):
                return waits, _Stop(outcome, ask, too_large)
            permits[ask.id] = commit(self.record, outcome, amounts, self.pacing)
            waits.append(wait)
        return waits, None

    def _too_large(self, amounts: Sequence[float]) -> int | None:
        """The dimension whose known bucket can never hold the call. Output is debited as it is produced."""
        for index in (0, INPUT):
            rate = self.record.rate[index]
            known = self.record.ceiling[index] > 0 or self.record.learned[index] > 0
            if known and rate > 0 and amounts[index] > MINUTE * rate * (1 + 1e-9):
                return index
        return None

    def _wait_behind(self, process: str, ahead: Line, behind: Line, now: float) -> Answer:
        due = due_after(ahead, now, self.record, self.pacing)
        due = min(due, now + self._longest(now))
        self.record.line = [*ahead, (process, round(due, 6)), *behind]
        denial = Denial(due - now, due - now, None, 0.0, self.record.interval)
        return Answer((), denial, self.pulse(now))

    def _deny(self, process: str, stop: _Stop, now: float, *, served: bool) -> Denial:
        """Give a ticket: at the head of the line to who got nothing, else behind the others."""
        record, pacing = self.record, self.pacing
        wait = stop.plan.start - now
        self._save_up(stop, now)
        due = now + max(gap(record, pacing), wait - pacing.horizon)
        if served and record.line:
            due = due_after(record.line, due, record, pacing)
        elif served:
            due = max(due, now + pacing.batch_interval)
        due = min(due, now + self._longest(now))
        record.line.insert(len(record.line) if served else 0, (process, round(due, 6)))
        binding = stop.plan.binding if stop.too_large is None else stop.too_large
        limit = 0.0 if stop.too_large is None else MINUTE * record.rate[stop.too_large]
        dimension = None if binding is None else DIMENSIONS[binding]
        return Denial(due - now, wait, dimension, limit, record.interval)

    def _save_up(self, stop: _Stop, now: float) -> None:
        """Steer to a higher level for a call that will come back, because it cannot wait for it here."""
        record, need = self.record, stop.plan.need[INPUT]
        impatient = stop.plan.start - now > max(self.pacing.horizon, stop.ask.patience)
        if impatient and stop.plan.binding == INPUT and need <= record.capacity[INPUT]:
            record.saving_for = need
            record.saving_until = now + self.pacing.saving_longest

    def _longest(self, now: float) -> float:
        return max(self.pacing.ticket_longest, self.record.paused_until - now)

    def pulse(self, now: float) -> Pulse:
        """Whether permits still hold."""
        return Pulse(int(self.record.generation), max(0.0, self.record.paused_until - now))

    def report(self, process: str, report: Report, now: float) -> None:
        """Take in what became of a permit; a permit that is not known changes nothing, a 429 pauses."""
        if isinstance(report, Settlement):
            self._settle(process, report, now)
        elif isinstance(report, Release):
            held = self._close(process, report.permit)
            if held is not None:
                learning.take_back(self.record, held)
        else:
            self._penalise(process, report, now)

    def _settle(self, process: str, report: Settlement, now: float) -> None:
        record, pacing = self.record, self.pacing
        held = self._held(process, report.permit)
        known = held is not None and held.epoch == record.epoch
        if report.headroom is not None:
            learn_limits(record, report.headroom, held.start if held and known else None, now, pacing)
        if held is None:
            return
        if known and report.failed:
            learning.take_back_tokens(record, held)
            learning.observe(record, held, report, now, pacing)
        elif known:
            if report.used is not None:
                learning.settle_input(record, held, report.used.input_tokens, pacing)
            learning.observe(record, held, report, now, pacing)
            if report.final:
                learning.count_answer_without_headers(record, pacing)
                if report.used is not None:
                    learning.settle_output(record, held, report.used.output_tokens, now, pacing)
            if report.used is not None or not report.final:
                learning.hear_answer(record, held, now, pacing)
        if report.final:
            self._close(process, report.permit)

    def _penalise(self, process: str, report: Penalty, now: float) -> None:
        record, pacing = self.record, self.pacing
        if report.headroom is not None:
            learn_limits(record, report.headroom, now, now, pacing)  # a refusal comes at once
        held = self._close(process, report.permit)
        if held is not None:
            learning.take_back(record, held)
        if report.refused:
            learning.refuse(record, report, now, pacing)
        else:
            learning.ease(record, report.retry_after, now, pacing)

    def _held(self, process: str, permit: str) -> Reservation | None:
        held = self.permits.get(process, {}).get(permit)
        return held or self.expired.get(process, {}).get(permit)

    def _close(self, process: str, permit: str) -> Reservation | None:
        """Forget a permit; return it if it still means something to this record."""
        held = self.permits.get(process, {}).pop(permit, None)
        if held is not None and held.epoch == self.record.epoch:
            learning.leave(self.record, held)
        held = held or self.expired.get(process, {}).pop(permit, None)
        return held if held is not None and held.epoch == self.record.epoch else None

    def teach(self, limits: Ceilings, now: float) -> None:
        """Take over limits as the Rate Limits API states them."""
        learn_probed(self.record, limits, now, self.pacing)

    def beat(self, process: str, now: float) -> list[str]:
        """Note a heartbeat; return the processes that have not been heard of for too long."""
        self.processes[process] = now
        oldest = now - self.pacing.heartbeat_timeout
        return [name for name, beat in self.processes.items() if beat <= oldest]

    def expire(self, process: str, now: float) -> int:
        """Give up the permits of a dead process. What they were charged stays charged: they may have been sent."""
        if self.processes.get(process, now) > now - self.pacing.heartbeat_timeout:
            return 0
        del self.processes[process]
        self.record.line = [turn for turn in self.record.line if turn[0] != process]
        given_up = self.permits.pop(process, {})
        for held in given_up.values():
            if held.epoch == self.record.epoch:
                learning.leave(self.record, held)
            held.input_variance = 0.0  # taken out; a late settlement finds nothing left of it
        self.expired.setdefault(process, {}).update(given_up)
        return len(given_up)
