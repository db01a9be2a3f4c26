"""The summary of a batch: what a person wants to know when it has ended."""

from producers.failed import Failures, failure_lines
from producers.wording import budget, duration, money, several
from producers.wrapping import folded
from promptmill.store.stats import BatchStatus


def summary_lines(status: BatchStatus, failures: Failures) -> list[str]:
    """The batch in a few lines.

    Args:
        status: its figures.
        failures: what went wrong.
    """
    batch = status.batch
    read = batch.input_tokens + batch.cache_read_tokens + batch.cache_write_tokens
    cache = f", {batch.cache_read_tokens:,} read from and {batch.cache_write_tokens:,} written to the cache"
    return [
        *folded(_answers(status)).splitlines(),
        *(
            part
            for line in failure_lines(failures, batch)
            for part in folded(line, indent=" " * 6).splitlines()
        ),
        f"tokens: {read:,} in, {batch.output_tokens:,} out"
        + (cache if batch.cache_read_tokens or batch.cache_write_tokens else ""),
        f"cost: {money(batch)}" + (" (nothing was paid: simulated)" if batch.simulated else ""),
        *([f"budget: {said}"] if (said := budget(batch)) else []),
        *folded(_calls(status)).splitlines(),
    ]


def _answers(status: BatchStatus) -> str:
    batch = status.batch
    rate = batch.done / status.elapsed_s if status.elapsed_s else 0.0
    return (
        f"{batch.name}: {several(batch.succeeded, 'answer')} of {several(batch.total, 'prompt')}"
        f" in {duration(status.elapsed_s)} ({rate:.1f} a second)"
        + (", from the simulated Claude" if batch.simulated else "")
    )


def _calls(status: BatchStatus) -> str:
    refused = status.failures.get("rate_limited", 0)
    attempts = several(status.batch.attempts, "attempt")
    return f"calls: {attempts}, {refused:,} refused with 429{_other_failures(status)}"


def _other_failures(status: BatchStatus) -> str:
    others = {kind: count for kind, count in status.failures.items() if kind != "rate_limited" and count}
    return "".join(f", {count:,} {kind}" for kind, count in sorted(others.items()))
