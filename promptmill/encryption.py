"""Encryption at rest: texts are sealed on their way into the database and opened on their way out.

The one idea: a sealed text says that it is one, so plain and sealed rows live in one column, keys can be replaced
while work goes on, and with no key nothing costs anything. Fernet (AES-128-CBC with HMAC-SHA256) by `cryptography`.
"""

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from promptmill.errors import ConfigurationError

SETTING = "PROMPTMILL_ENCRYPTION_KEYS_FILE"
SEALED = "promptmill-sealed:"
"""How a sealed text begins; what a person wrote so is written with PLAIN behind it."""
PLAIN = "0:"
FERNET = "1:"
OF_KEY = ":"
"""Between the id of the key and what it sealed; what was sealed before keys had ids names none."""
KEYED = "keyed:"
"""How a word begins that is looked up: a hash under the first key, because a hash of a text can be guessed."""
_ADVICE = "make one with: promptmill encrypt --new-key"
_KEYED_DIGITS = 32
_ID_DIGITS = 8


class Vault:
    """Keys: the first seals, every one opens."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Take Fernet keys, the current one first.

        Raises:
            ValueError: there is none, or one is no key.
        """
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415  # 30 ms that others need not take

        fernets = [Fernet(key) for key in keys]
        self._first, self._all = fernets[0], MultiFernet(fernets)
        self.ids = tuple(id_of(key) for key in keys)
        """Of the keys, in their order; they tell nothing of them."""
        self._hash_key = hashlib.sha256(b"promptmill keyed words" + keys[0].encode()).digest()

    def seal(self, text: str) -> str:
        """The text under the first key."""
        return SEALED + FERNET + self.ids[0] + OF_KEY + self._first.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """The text that was sealed.

        Raises:
            ConfigurationError: none of the keys opens it.
        """
        from cryptography.fernet import InvalidToken  # noqa: PLC0415  # see above

        try:
            return self._all.decrypt(_token(sealed)).decode()
        except InvalidToken:
            its_id = f" (its id is {lost})" if (lost := key_of(sealed)) else ""
            raise _cannot(f"with another key than those in its file{its_id}") from None

    def is_current(self, sealed: str) -> bool:
        """Whether the first key opens it."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415  # see above

        try:
            self._first.decrypt(_token(sealed))
        except InvalidToken:
            return False
        return True

    def keyed(self, word: str) -> str:
        """A word to be looked up, as a hash that tells nothing to who has no key; one that is hashed stays so."""
        if word.startswith(KEYED):
            return word
        return KEYED + hmac.new(self._hash_key, word.encode(), hashlib.sha256).hexdigest()[:_KEYED_DIGITS]


def id_of(key: str) -> str:
    """By what a key is named where everybody may read it."""
    return hashlib.sha256(b"promptmill key id" + key.encode()).hexdigest()[:_ID_DIGITS]


def key_of(stored: str) -> str | None:
    """The id of the key that a text was sealed with; None where it names none, or is not sealed."""
    if not stored.startswith(SEALED + FERNET):
        return None
    named, found, _ = stored[len(SEALED) + len(FERNET) :].partition(OF_KEY)
    return named if found else None


def sealed(vault: Vault | None, text: str) -> str:
    """A text as it is stored."""
    if vault is not None:
        return vault.seal(text)
    return SEALED + PLAIN + text if text.startswith(SEALED) else text


def opened(vault: Vault | None, stored: str) -> str:
    """The text that was stored.

    Raises:
        ConfigurationError: it is sealed, and no key opens it.
    """
    if not stored.startswith(SEALED):
        return stored
    if stored.startswith(PLAIN, len(SEALED)):
        return stored[len(SEALED) + len(PLAIN) :]
    if vault is None:
        raise _cannot("and no key is given")
    return vault.open(stored)


def read_vault(file: Path | None) -> Vault | None:
    """The keys of a file, one a line, the current one first; empty lines and `#` are passed over. None for no file.

    Raises:
        ConfigurationError: it cannot be read, holds no key, or what is no key.
    """
    if file is None:
        return None
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(f"{file} cannot be read ({type(error).__name__})") from error
    keys = {number: line for number, line in enumerate(lines, 1) if line and not line.startswith("#")}
    if not keys:
        raise _wrong(f"{file} holds no key; {_ADVICE}")
    wrong = next((number for number, key in keys.items() if not _is_key(key)), None)
    if wrong is not None:
        raise _wrong(f"{file}, line {wrong}: no key; {_ADVICE}")
    return Vault(list(keys.values()))


def new_key() -> str:
    """A fresh key, of the system's randomness."""
    from cryptography.fernet import Fernet  # noqa: PLC0415  # see above

    return Fernet.generate_key().decode()


def _is_key(text: str) -> bool:
    from cryptography.fernet import Fernet  # noqa: PLC0415  # see above

    try:
        Fernet(text)
    except ValueError:
        return False
    return True


def _token(sealed: str) -> bytes:
    return sealed[len(SEALED) + len(FERNET) :].rpartition(OF_KEY)[2].encode()


def _wrong(why: str) -> ConfigurationError:
    return ConfigurationError(f"{SETTING}: {why}", setting=SETTING)


def _cannot(how: str) -> ConfigurationError:
    return _wrong(f"the texts in this database are encrypted {how}")
