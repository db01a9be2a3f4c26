"""A JSON value that fits a JSON Schema, drawn from a seeded generator.

The one idea: this is no validator. It covers what structured outputs and tool inputs may say (claude-api.md,
2.4): objects, arrays, enums, unions, local references, string formats; required properties come first.
"""

import random
from collections.abc import Mapping
from typing import Any

_WORDS = ("amber", "harbour", "lantern", "meadow", "north", "paper", "quiet", "river", "signal", "winter")
_FORMATS = {
    "date-time": "2026-11-22T19:30:15Z",
    "time": "19:30:15Z",
    "date": "2026-11-22",
    "duration": "PT45M",
    "email": "someone@example.com",
    "hostname": "example.com",
    "uri": "https://example.com/page",
    "ipv4": "192.0.2.10",
    "ipv6": "2001:db8::10",
    "uuid": "3f2b8c1e-5d4a-4e6f-9b7a-0c1d2e3f4a5b",
}
_DEEPEST = 12
_MOST_ITEMS = 3
_CHANCE_OF_OPTIONAL = 0.5
_USUAL_TOP = 100


def value_for(schema: Any, rng: random.Random) -> Any:
    """A value that fits `schema`; `{}` and `True` allow anything and get a word."""
    return _Maker(schema, rng).make(schema, 0)


class _Maker:
    def __init__(self, root: Any, rng: random.Random) -> None:
        self._root = root
        self._rng = rng

    def make(self, schema: Any, depth: int) -> Any:  # noqa: PLR0911  one return per keyword of the schema
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            return self._word()
        if "$ref" in schema:
            return self.make(self._find(str(schema["$ref"])), depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._rng.choice(schema["enum"])
        for union in ("anyOf", "oneOf"):
            if schema.get(union):
                return self.make(self._rng.choice(schema[union]), depth + 1)
        if schema.get("allOf"):
            return self._merged(schema["allOf"], depth)
        return self._of_type(schema, depth)

    def _of_type(self, schema: Mapping[str, Any], depth: int) -> Any:  # noqa: PLR0911  one return per type
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = self._rng.choice(kind)
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer":
                return self._integer(schema)
            case "number":
                return self._integer(schema) + 0.5 * ("maximum" not in schema)
            case "boolean":
                return self._rng.random() < _CHANCE_OF_OPTIONAL
            case "null":
                return None
            case _:
                return _FORMATS.get(str(schema.get("format")), self._word())

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        required = [name for name in schema.get("required") or () if name in properties]
        optional = [name for name in properties if name not in required]
        chosen = [name for name in optional if self._rng.random() < _CHANCE_OF_OPTIONAL]
        return {name: self.make(properties[name], depth + 1) for name in (*required, *chosen)}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        count = self._rng.randint(max(1, int(schema.get("minItems", 1))), _MOST_ITEMS)
        return [self.make(schema.get("items", {}), depth + 1) for _ in range(count)]

    def _integer(self, schema: Mapping[str, Any]) -> int:
        low = int(schema.get("minimum", 0))
        return self._rng.randint(low, max(low, int(schema.get("maximum", low + _USUAL_TOP))))

    def _merged(self, parts: list[Any], depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for part in parts:
            made = self.make(part, depth + 1)
            merged |= made if isinstance(made, dict) else {}
        return merged

    def _find(self, reference: str) -> Any:
        target = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            target = target.get(step.replace("~1", "/").replace("~0", "~"), {}) if step else target
        return target

    def _word(self) -> str:
        return self._rng.choice(_WORDS)
