"""Keys, known to everybody else by their label.

Where a key comes from is a source (`sources`, and `tokens` for those that are fetched); which of them may be used now
is the ring's to say (`ring`). Nothing here prints a value.
"""

from promptmill.claude.keys.key import (
    DEFAULT,
    Header,
    Key,
    SourceKind,
    configured_account,
    is_rehearsing,
    rehearsing,
)
from promptmill.claude.keys.ring import PROBE_EVERY, PROBE_PATIENCE, KeyRing, Rest
from promptmill.claude.keys.sources import KeySource, declared_keys, load_keys
from promptmill.claude.keys.standing import KeyStanding, KeyState, Missing
from promptmill.claude.keys.tokens import Token, TokenKeeper, fetch_token

__all__ = [
    "DEFAULT",
    "PROBE_EVERY",
    "PROBE_PATIENCE",
    "Header",
    "Key",
    "KeyRing",
    "KeySource",
    "KeyStanding",
    "KeyState",
    "Missing",
    "Rest",
    "SourceKind",
    "Token",
    "TokenKeeper",
    "configured_account",
    "declared_keys",
    "fetch_token",
    "is_rehearsing",
    "load_keys",
    "rehearsing",
]
