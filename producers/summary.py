"""The summary of a batch: what a person wants to know when it has ended."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

from producers.answers import Result
from producers.wording import budget, duration, money, several
from promptmill.states import JobState
from promptmill.store.stats import BatchStatus

_FAILURES_READ = 5_000
"""A million failures are not read to name their kinds; the first ones have them all."""

_MESSAGE_LENGTH = 160


def summary_lines(status: BatchStatus, failed: Iterable[Result]) -> list[str]:
    """The batch in a few lines.

    Args:
        status: its figures.
        failed: its results that did not succeed; only the first few thousand are read.
    """
    batch = status.batch
    read = batch.input_tokens + batch.cache_read_tokens + batch.cache_write_tokens
    rate = batch.done / status.elapsed_s if status.elapsed_s else 0.0
    cache = f", {batch.cache_read_tokens:,} read from and {batch.cache_write_tokens:,} written to the cache"
    return [
        f"{batch.name}: {several(batch.succeeded, 'answer')} of {several(batch.total, 'prompt')}"
        f" in {duration(status.elapsed_s)} ({rate:.1f} a second)"
        + (", from the simulated Claude" if batch.simulated else ""),
        *_failures(status, failed),
        f"tokens: {read:,} in, {batch.output_tokens:,} out"
        + (cache if batch.cache_read_tokens or batch.cache_write_tokens else ""),
        f"cost: {money(batch)}" + (" (nothing was paid: simulated)" if batch.simulated else ""),
        *([f"budget: {said}"] if (said := budget(batch)) else []),
        f"calls: {several(batch.attempts, 'attempt')}, {status.failures.get('rate_limited', 0):,} refused with 429"
        + _other_failures(status),
    ]


def _failures(status: BatchStatus, failed: Iterable[Result]) -> list[str]:
    batch = status.batch
    if batch.succeeded == batch.done:
        return []
    kinds: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for result in islice(failed, _FAILURES_READ):
        kind = result.error.kind if result.error and result.state is JobState.ERRORED else result.state.value
        kinds[kind] += 1
        if result.error and result.error.message:
            examples.setdefault(kind, f"{result.custom_id}: {_shortened(result.error.message)}")
    counted = "" if kinds.total() < _FAILURES_READ else f" (of the first {_FAILURES_READ:,})"
    return [
        f"not answered: {count:,} {kind}{counted}" + (f", as {examples[kind]}" if kind in examples else "")
        for kind, count in kinds.most_common()
    ]


def _other_failures(status: BatchStatus) -> str:
    others = {kind: count for kind, count in status.failures.items() if kind != "rate_limited" and count}
    return "".join(f", {count:,} {kind}" for kind, count in sorted(others.items()))


def _shortened(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _MESSAGE_LENGTH else f"{line[: _MESSAGE_LENGTH - 1]}…"
