"""Time-ordered ids with a prefix: `batch_01k…`, `job_01k…`.

48 bits of milliseconds and 80 random bits in Crockford's base 32 (the ULID layout), so rows made
together lie together in an index. At most 64 of [A-Za-z0-9_-], which lets an id serve as `custom_id`.
"""

import secrets
import time
from collections.abc import Iterator
from itertools import islice

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 80
_LENGTH = 26
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_COUNTED_BITS = 20  # two pairs


def new_id(prefix: str) -> str:
    """A fresh id that begins with `prefix` and an underscore."""
    value = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    return f"{prefix}_{_encode(value)}"


def new_ids(prefix: str, count: int) -> list[str]:
    """That many fresh ids at once: they ascend, and share one draw of 60 random bits for up to a million of them."""
    return list(islice(_ascending(prefix), count))


def time_of(made: str) -> int | None:
    """When an id was made, in nanoseconds since 1970, to the millisecond; None for what is none of these ids."""
    digits = made.rpartition("_")[2]
    if len(digits) != _LENGTH or not set(digits) <= set(_ALPHABET):
        return None
    value = 0
    for digit in digits:
        value = value << 5 | _ALPHABET.index(digit)
    return (value >> _RANDOM_BITS) * 1_000_000


def _ascending(prefix: str) -> Iterator[str]:
    while True:
        head = new_id(prefix)[: -_COUNTED_BITS // 5]
        for first in _PAIRS:
            for second in _PAIRS:
                yield head + first + second


def _encode(value: int) -> str:
    return "".join(_PAIRS[(value >> shift) & 1023] for shift in range(10 * (_LENGTH // 2 - 1), -1, -10))
