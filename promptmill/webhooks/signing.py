"""What deliveries are signed with, as Standard Webhooks 1.0 says (standardwebhooks.com).

The one idea: the HMAC-SHA256 of `id.timestamp.body`, once for each secret, so that one can be replaced while it is in use.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field

from promptmill.errors import InvalidInput

SHORTEST_SECRET = 24
"""Bytes; Standard Webhooks 1.0 asks for as many."""
_SECRET_PREFIX = "whsec_"  # noqa: S105  # how such a secret begins


@dataclass(frozen=True, slots=True)
class Secrets:
    """What deliveries are signed with; several while one is being replaced. They are in no repr."""

    values: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def read(cls, text: str) -> "Secrets":
        """Secrets from text, one or several between blanks: `whsec_` and base64, or any other words as they are.

        Raises:
            InvalidInput: one is shorter than 24 bytes, or what follows `whsec_` is no base64.
        """
        return cls(tuple(_secret(word) for word in text.split()))

    def signatures(self, message_id: str, timestamp: int, body: bytes) -> str:
        """The value of `webhook-signature`."""
        signed = f"{message_id}.{timestamp}.".encode() + body
        digests = (hmac.new(each, signed, hashlib.sha256).digest() for each in self.values)
        return " ".join(f"v1,{base64.b64encode(each).decode()}" for each in digests)


def _secret(word: str) -> bytes:
    secret = word.encode()
    if word.startswith(_SECRET_PREFIX):
        try:
            secret = base64.b64decode(word.removeprefix(_SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput("what follows whsec_ is no base64", field="webhook secret") from None
    if len(secret) < SHORTEST_SECRET:
        why = f"a secret has at least {SHORTEST_SECRET} bytes, and one given has {len(secret)}; make one with: openssl rand -hex 32"
        raise InvalidInput(why, field="webhook secret")
    return secret
