"""The names of a row's fields: which ones are read, and which are nearly one of them.

A field that nothing reads is data of the user's own and comes back with the answer, so `temprature` would be
taken for that, and paid for. Only slips of which there is little doubt are refused: whoever means a field of
their own can call it something else, but a false alarm about `models` or `customer_id` would be a nuisance.
"""

import difflib
import re
from collections.abc import Mapping
from functools import lru_cache
from operator import ne
from typing import Any

from promptmill.errors import InvalidInput

# The fields of a Messages request (claude-api.md, 2.1), those of the beta and the retired ones with them.
REQUEST_FIELDS = frozenset(
    {
        "model", "max_tokens", "messages", "system", "stop_sequences", "stream", "metadata", "thinking",
        "output_config", "tools", "tool_choice", "cache_control", "service_tier", "inference_geo", "speed",
        "container", "diagnostics", "context_management", "mcp_servers", "fallbacks", "temperature", "top_p",
        "top_k",
    }
)  # fmt: skip
ROW_FIELDS = REQUEST_FIELDS | {"prompt", "custom_id"}
# Fields that change neither an answer nor its price: `meta_data` of one's own is no loss.
HARMLESS = frozenset({"metadata", "stream", "diagnostics"})
# As alike as a slip is, and words of their own.
_OTHER_WORDS = frozenset({"contained", "customerid", "mode", "seed", "speedy", "stools", "temperate"})
_ALIKE = 0.88  # one letter too few in a word of five
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_SWAPPED = 2  # places that differ then
_LONGEST = 30  # of what can be nearly one of ours; longer is text, not a name


def refuse_slips(fields: Mapping[str, Any], known: frozenset[str], *, or_else: str = "") -> None:
    """Raise InvalidInput for a field that is not known and is most likely meant for one that is.

    Args:
        fields: those of one row, or of one request.
        known: the names that are read there.
        or_else: what to do where it was not meant for that.
    """
    slips = [
        (str(name), meant)
        for name in fields
        if name not in known and (meant := meant_by(str(name))) in known and meant not in fields
    ]
    if not slips:
        return
    (field, meant), *others = slips
    too = "also " + ", ".join(f"{name}: {of}" for name, of in others) if others else ""
    advice = "; ".join(part for part in (too, or_else) if part)
    raise InvalidInput(
        f"there is no such field; did you mean {meant}?{advice and f' ({advice})'}", field=field
    )


@lru_cache(maxsize=1_000)  # rows of a file have the same fields
def meant_by(name: str) -> str | None:
    """The field of ROW_FIELDS that `name` is a slip of; None where it may well be a name of its own."""
    bare = _bare(name[: _LONGEST + 1])
    if len(name) > _LONGEST or bare in _OTHER_WORDS:
        return None
    near = difflib.get_close_matches(bare, _BY_BARE_NAME, n=1, cutoff=_ALIKE)
    other = next(iter(near), None) or next((each for each in _BY_BARE_NAME if _is_swapped(bare, each)), None)
    if other is None:
        return None
    meant = _BY_BARE_NAME[other]
    return None if bare != other and _is_made_of(name, meant) else meant


def _bare(name: str) -> str:
    """`max_tokens` of `maxTokens`, `max-tokens` and `Max Tokens` alike, without what stands between words."""
    return re.sub(r"[\W_]+", "", name).lower()


_BY_BARE_NAME = {_bare(name): name for name in sorted(ROW_FIELDS - HARMLESS)}


def _is_swapped(bare: str, other: str) -> bool:
    """Two letters changed places, which a ratio finds less alike than it is: `modle`."""
    return sorted(bare) == sorted(other) and sum(map(ne, bare, other)) == _SWAPPED


def _is_made_of(name: str, meant: str) -> bool:
    """`model_a`, `prompt2`, `containerId`, `models`, `message`: one of several, or a thing that belongs to it."""
    words = "_".join(_WORDS.findall(name)).lower()
    if words.startswith(f"{meant}_") or words.endswith(f"_{meant}"):
        return True
    return "_" not in meant and words.rstrip("s") == meant.rstrip("s")
