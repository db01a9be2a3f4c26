"""Prompt: what is asked. Immutable, and equal prompts have equal fingerprints.

A Prompt is the body of a Messages request without `stream`: `model`, `max_tokens`, `messages`, and any
other field of the API, passed through untouched. What a whole batch shares is stored once on the batch,
what is a job's own beside the job; `merge` puts the two together again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FINGERPRINT_LENGTH = 32

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to Claude: the request body as it will be sent, without `stream`."""

    body: Body

    @property
    def model(self) -> str:
        """The model that is asked for."""
        return str(self.body["model"])

    @property
    def max_tokens(self) -> int:
        """The ceiling on thinking and text together."""
        return int(self.body["max_tokens"])

    @property
    def fingerprint(self) -> str:
        """Equal for equal prompts, whatever the order of their fields."""
        return fingerprint_of(self.body)


def merge(shared: Body, own: Body) -> Prompt:
    """The Prompt of a job: its own fields over those its batch shares."""
    return Prompt({**shared, **own})


def canonical_json(value: object) -> str:
    """One text for one value: sorted keys, no spaces, characters as they are.

    Text that UTF-8 cannot hold (a lone surrogate) is escaped, so that every value has a text.
    """
    text = _canonical(value)
    return text if text.isascii() or _fits_utf8(text) else _canonical_ascii(value)


def fingerprint_of(value: object) -> str:
    """The first 128 bits of the SHA-256 of `canonical_json(value)`, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:FINGERPRINT_LENGTH]


# Made once: `json.dumps` makes an encoder at every call.
_canonical = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode
_canonical_ascii = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _fits_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
