"""Prompt caching: which part of a prompt is read from the cache, which is written, which is neither.

The one idea: a prefix is known by a chain of hashes over its blocks (tools, then system, then messages), an
entry exists only where a request put a breakpoint, and it can be read only after the first answer began
(claude-api.md, 2.5). A cache belongs to one organization.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from promptmill.prompts import canonical_json
from promptmill.simulator.models import ServedModel
from promptmill.simulator.tokens import PER_MESSAGE, PER_REQUEST, count_block, count_tools, scale, scale_by

MOST_BREAKPOINTS = 4
_LOOK_BACK_BLOCKS = 20
_LIFETIME_S = {"5m": 300.0, "1h": 3600.0}
_USUAL_MINIMUM = 512
_ROOM = 20_000


@dataclass(slots=True)
class CachePlan:
    """What caching does to one request; nothing has happened until it is committed."""

    uncached: int
    read: int = 0
    write_5m: int = 0
    write_1h: int = 0
    used: bytes | None = None
    written: list[tuple[bytes, str]] = field(default_factory=list)

    @property
    def limited(self) -> int:
        """What counts against the input-token limit: everything but reads."""
        return self.uncached + self.write_5m + self.write_1h


@dataclass(slots=True)
class _Entry:
    readable_at: float
    expires_at: float
    lifetime: str


@dataclass(frozen=True, slots=True)
class _Boundary:
    digest: bytes
    tokens: int
    lifetime: str | None


class PromptCache:
    """The cached prefixes of one organization."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}

    def plan(self, body: Mapping[str, Any], total: int, model: ServedModel, now: float) -> CachePlan:
        """Split the `total` input tokens of a request; changes nothing."""
        boundaries = list(_boundaries(body, model))
        minimum = model.facts.minimum_cacheable or _USUAL_MINIMUM
        marks = [i for i, each in enumerate(boundaries) if each.lifetime and each.tokens >= minimum]
        if not marks:
            return CachePlan(uncached=total)
        plan = CachePlan(uncached=total)
        hit = self._longest_hit(boundaries, marks, now)
        covered = 0
        if hit is not None:
            covered = plan.read = min(total, boundaries[hit].tokens)
            plan.used = boundaries[hit].digest
        for mark in marks:
            boundary = boundaries[mark]
            added = min(total, boundary.tokens) - covered
            if added <= 0 or boundary.lifetime is None:
                continue
            if boundary.lifetime == "1h":
                plan.write_1h += added
            else:
                plan.write_5m += added
            plan.written.append((boundary.digest, boundary.lifetime))
            covered += added
        plan.uncached = total - covered
        return plan

    def commit(self, plan: CachePlan, *, now: float, begins_at: float) -> None:
        """Note reads and writes of an admitted request whose answer begins at `begins_at`."""
        if plan.used is not None and (entry := self._entries.get(plan.used)):
            entry.expires_at = now + _LIFETIME_S[entry.lifetime]
        for digest, lifetime in plan.written:
            known = self._entries.get(digest)
            readable = begins_at
            if known is not None and known.expires_at > now:
                readable = min(readable, known.readable_at)
            self._entries[digest] = _Entry(readable, now + _LIFETIME_S[lifetime], lifetime)
        if len(self._entries) > _ROOM:
            self._forget(now)

    def _longest_hit(self, boundaries: list[_Boundary], marks: list[int], now: float) -> int | None:
        for mark in reversed(marks):
            for index in range(mark, max(-1, mark - _LOOK_BACK_BLOCKS - 1), -1):
                entry = self._entries.get(boundaries[index].digest)
                if entry is not None and entry.readable_at <= now < entry.expires_at:
                    return index
        return None

    def _forget(self, now: float) -> None:
        alive = {digest: entry for digest, entry in self._entries.items() if entry.expires_at > now}
        oldest_first = sorted(alive.items(), key=lambda item: item[1].expires_at)
        self._entries = dict(oldest_first[-_ROOM // 2 :])


def breakpoints(body: Mapping[str, Any]) -> int:
    """How many cache breakpoints a request has; the top-level one counts."""
    marked = sum(
        1 for _, block, _ in _blocks(body) if isinstance(block, Mapping) and block.get("cache_control")
    )
    return marked + bool(body.get("cache_control"))


def _boundaries(body: Mapping[str, Any], model: ServedModel) -> Iterator[_Boundary]:
    dense = model.facts.dense_tokenizer
    blocks = list(_blocks(body))
    automatic = _lifetime(body)
    digest = _start(body, model)
    tools_tokens = round(count_tools(body, dense=dense))
    tokens = PER_REQUEST
    for index, (place, block, opens) in enumerate(blocks):
        is_tool = place == "tool"
        if not is_tool:
            tokens += count_block(block) + (PER_MESSAGE if opens else 0.0)
        lifetime = _lifetime(block) if isinstance(block, Mapping) else None
        if index == len(blocks) - 1 and automatic:
            lifetime = lifetime or automatic
        digest = _chain(digest, place, block)
        whole = scale_by(model.token_factor, scale(tokens, dense=dense) + tools_tokens)
        yield _Boundary(digest, whole, lifetime)


def _blocks(body: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """(place, block, whether it opens a message) in the order of the prefix."""
    for tool in body.get("tools") or ():
        yield "tool", tool, False
    system = body.get("system")
    for block in system if isinstance(system, list) else [system] if system else ():
        yield "system", block, False
    for message in body["messages"]:
        content = message.get("content")
        blocks = content if isinstance(content, list) else [content]
        for position, block in enumerate(blocks):
            yield str(message.get("role")), block, position == 0


def _start(body: Mapping[str, Any], model: ServedModel) -> bytes:
    # Changing effort or thinking makes another prefix (claude-api.md, 2.5); so does the model or the speed.
    effort = (body.get("output_config") or {}).get("effort")
    parts = [model.facts.id, body.get("thinking"), effort, body.get("tool_choice"), body.get("speed")]
    return hashlib.blake2b(canonical_json(parts).encode(), digest_size=16).digest()


def _chain(digest: bytes, place: str, block: Any) -> bytes:
    if isinstance(block, Mapping) and "cache_control" in block:
        block = {name: value for name, value in block.items() if name != "cache_control"}
    if isinstance(block, str):
        block = {"type": "text", "text": block}
    text = canonical_json([place, block])
    return hashlib.blake2b(digest + text.encode(), digest_size=16).digest()


def _lifetime(holder: Mapping[str, Any]) -> str | None:
    control = holder.get("cache_control")
    return str(control.get("ttl") or "5m") if isinstance(control, Mapping) else None
