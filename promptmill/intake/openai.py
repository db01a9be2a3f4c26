"""A line of an OpenAI batch file as a request to Claude.

What has a counterpart is translated, what has none is an error that names the field: a parameter that is
silently dropped changes answers without a word. Sampling parameters pass, and are judged with everybody's.
"""

from collections.abc import Mapping
from typing import Any

from promptmill.errors import InvalidInput

CHAT_URL = "/v1/chat/completions"

_SAME = frozenset({"model", "temperature", "top_p", "top_k"})
_CEILINGS = ("max_completion_tokens", "max_tokens")
_NOT_ASKED_FOR: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "stream": (False,),
    "store": (False,),
    "logprobs": (False,),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "service_tier": ("auto", "default"),
}
_EFFORTS = frozenset({"low", "medium", "high", "xhigh"})
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def is_openai_line(row: Mapping[str, Any]) -> bool:
    """True for `{"custom_id", "method", "url", "body"}`."""
    return isinstance(row.get("body"), Mapping) and ("url" in row or "method" in row)


def translate(row: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the Messages request that asks the same.

    Raises:
        InvalidInput: it is no chat completion, or a field has no counterpart.
    """
    if str(row.get("url", CHAT_URL)) != CHAT_URL:
        raise InvalidInput(f"only {CHAT_URL} can be translated", field="url")
    body: dict[str, Any] = {}
    for name, value in row["body"].items():
        if value is not None and value not in _NOT_ASKED_FOR.get(name, ()):
            _translate_field(name, value, body)
    return body


def _translate_field(name: str, value: Any, body: dict[str, Any]) -> None:
    if name in _SAME:
        body[name] = value
    elif name in _CEILINGS:
        body["max_tokens"] = value
    elif name == "messages":
        body.update(_messages(value))
    elif name == "stop":
        body["stop_sequences"] = [value] if isinstance(value, str) else value
    elif name == "user":
        body["metadata"] = {"user_id": value}
    elif name == "tools":
        body["tools"] = [_tool(tool, place) for place, tool in enumerate(_list(value, "tools"))]
    elif name == "tool_choice":
        body["tool_choice"] = _tool_choice(value)
    elif name == "reasoning_effort" and value in _EFFORTS:
        body.setdefault("output_config", {})["effort"] = value
    elif name == "response_format":
        body.setdefault("output_config", {}).update(_format(value))
    else:
        raise InvalidInput("has no counterpart in the Messages API; remove it", field=f"body.{name}")


def _messages(value: Any) -> dict[str, Any]:
    system: list[str] = []
    messages: list[dict[str, Any]] = []
    for place, message in enumerate(_list(value, "messages")):
        field = f"body.messages[{place}]"
        if not isinstance(message, Mapping):
            raise InvalidInput("not an object", field=field)
        role, content = message.get("role"), message.get("content")
        if strange := sorted(set(message) - {"role", "content", "name"}):
            raise InvalidInput(
                "has no counterpart in the Messages API; remove it", field=f"{field}.{strange[0]}"
            )
        if role in {"system", "developer"} and not messages:
            system.append(_text(content, field))
        elif role in {"user", "assistant"}:
            messages.append({"role": role, "content": _content(content, field)})
        else:
            raise InvalidInput(f"role {role!r} cannot be translated here", field=f"{field}.role")
    return {"messages": messages} | ({"system": "\n\n".join(system)} if system else {})


def _text(content: Any, field: str) -> str:
    parts = _content(content, field)
    if isinstance(parts, str):
        return parts
    return "".join(str(part.get("text", "")) for part in parts)


def _content(content: Any, field: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidInput("neither text nor a list of parts", field=f"{field}.content")
    return [_part(part, f"{field}.content[{place}]") for place, part in enumerate(content)]


def _part(part: Any, field: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return {"type": "text", "text": part.get("text", "")}
    if kind == "image_url" and isinstance(part.get("image_url"), Mapping):
        return {"type": "image", "source": _image(str(part["image_url"].get("url", "")), field)}
    raise InvalidInput(f"a part of type {kind!r} cannot be translated", field=field)


def _image(url: str, field: str) -> dict[str, str]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url.removeprefix("data:").partition(",")
    if not head.endswith(";base64"):
        raise InvalidInput("an image in a data URL must be base64", field=field)
    return {"type": "base64", "media_type": head.removesuffix(";base64"), "data": data}


def _tool(tool: Any, place: int) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or "name" not in function:
        raise InvalidInput("not a function", field=f"body.tools[{place}]")
    translated = {"name": function["name"], "input_schema": function.get("parameters") or {"type": "object"}}
    return translated | {name: function[name] for name in ("description", "strict") if function.get(name)}


def _tool_choice(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value in _CHOICES:
        return {"type": _CHOICES[value]}
    if isinstance(value, Mapping) and isinstance(value.get("function"), Mapping):
        return {"type": "tool", "name": value["function"].get("name")}
    raise InvalidInput("has no counterpart in the Messages API; remove it", field="body.tool_choice")


def _format(value: Any) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return {}
    if kind == "json_schema" and isinstance(value.get("json_schema"), Mapping):
        return {"format": {"type": "json_schema", "schema": value["json_schema"].get("schema", {})}}
    raise InvalidInput("only text and json_schema have a counterpart", field="body.response_format")


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInput("not a list", field=f"body.{name}")
    return value
