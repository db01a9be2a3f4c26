"""Which requests are refused before anything else is looked at, and with what words.

The one idea: the checks are the API's (claude-api.md, 1.3, 2 and 9.4), made on the parsed body by plain
comparisons, because this runs for every request. Order and wording follow the real server where they are known.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any

from promptmill.simulator import caching, problems
from promptmill.simulator.betas import BETAS
from promptmill.simulator.models import THINKING_TYPES, Menu, ServedModel
from promptmill.simulator.problems import invalid

NEWEST_VERSION = "2026-10-21"
VERSIONS = ("2023-06-01", NEWEST_VERSION)

_FIELDS = frozenset(
    {
        "model",
        "max_tokens",
        "messages",
        "system",
        "stop_sequences",
        "stream",
        "metadata",
        "thinking",
        "output_config",
        "tools",
        "tool_choice",
        "cache_control",
        "service_tier",
        "inference_geo",
        "speed",
        "container",
        "diagnostics",
    }
)
_BETA_FIELDS = frozenset(
    {
        "context_management",
        "compaction",
        "fallbacks",
        "fallback_credit_token",
        "mcp_servers",
        "thread",
        "billing_policy",
    }
)
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_NOT_WHEN_COUNTING = frozenset({"max_tokens", "stream"})
_ROLES = frozenset({"user", "assistant", "system"})
_BLOCKS = frozenset(
    {
        "text",
        "image",
        "document",
        "search_result",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "tool_result",
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "container_upload",
        "mcp_tool_use",
        "mcp_tool_result",
        "fallback",
        "compaction",
    }
)
_MOST_MESSAGES = 100_000
_LEAST_THINKING_BUDGET = 1024
_THINKING_OFF_EFFORTS = frozenset({"xhigh", "max"})
_HIGH_EFFORT_NEEDS_THINKING = frozenset(
    {"claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5"}  # claude-api.md, 2.3
)
_FAST_BETA = "fast-mode-2026-02-01"


def check_version(version: str | None) -> str:
    """The API version of a request.

    Raises:
        ApiProblem: the header is missing or names no version.
    """
    if version is None:
        raise invalid("anthropic-version: header is required")
    if version not in VERSIONS:
        raise invalid(f'anthropic-version: "{version}" is not a valid version')
    return version


def read_betas(headers: Iterable[str]) -> frozenset[str]:
    """The beta names of a request.

    Raises:
        ApiProblem: a name is not known.
    """
    names = frozenset(name.strip() for header in headers for name in header.split(",") if name.strip())
    if strange := sorted(names - BETAS):
        listed = ", ".join(f"`{name}`" for name in strange)
        raise invalid(f"Unexpected value(s) {listed} for the `anthropic-beta` header.")
    return names


def check_request(
    body: Any, *, menu: Menu, version: str, betas: frozenset[str], on: date, counting: bool = False
) -> ServedModel:
    """The model that a request is for.

    Args:
        body: the parsed JSON.
        menu: the models on offer.
        version: of the API.
        betas: what the beta header names.
        on: today, for retired models.
        counting: True for count_tokens, which has no `max_tokens`.

    Raises:
        ApiProblem: 400 with the field at fault, or 404 for the model.
    """
    if not isinstance(body, dict):
        raise invalid("Input should be an object")
    _check_fields(body, version=version, betas=betas, counting=counting)
    model = menu.find(body["model"])
    if model is None or model.facts.is_retired(on):
        raise problems.unknown_model(body["model"])
    _check_messages(body["messages"], model, version)
    if not counting:
        _check_max_tokens(body, model)
    for name, check in _OPTIONAL_CHECKS.items():
        if body.get(name) is not None:
            check(body, model)
    if body.get("speed") == "fast":
        _check_fast(model, betas)
    if not _SAMPLING.isdisjoint(body):
        _check_sampling(body, model)
    return model


def _check_fields(body: dict[str, Any], *, version: str, betas: frozenset[str], counting: bool) -> None:
    needed = ("model", "messages") if counting else ("model", "max_tokens", "messages")
    for name in needed:
        if name not in body:
            raise invalid(f"{name}: Field required")
    allowed = _FIELDS | _BETA_FIELDS if betas else _FIELDS
    if version != NEWEST_VERSION:
        allowed = allowed | _SAMPLING
    if counting:
        allowed = allowed - _NOT_WHEN_COUNTING
    if strange := body.keys() - allowed:
        raise invalid(f"{min(strange)}: Extra inputs are not permitted")
    if not isinstance(body["model"], str):
        raise invalid("model: Input should be a valid string")
    if not isinstance(body.get("stream", False), bool):
        raise invalid("stream: Input should be a valid boolean")


def _check_messages(messages: Any, model: ServedModel, version: str) -> None:
    if not isinstance(messages, list):
        raise invalid("messages: Input should be a valid list")
    if not messages:
        raise invalid("messages: at least one message is required")
    if len(messages) > _MOST_MESSAGES:
        raise invalid(f"messages: too many messages: {len(messages)} > {_MOST_MESSAGES} maximum")
    for index, message in enumerate(messages):
        _check_message(index, message, version)
    if messages[-1]["role"] == "assistant" and not model.continues_prefill:
        raise invalid(
            "This model does not support assistant message prefill. "
            "The conversation must end with a user message."
        )


def _check_message(index: int, message: Any, version: str) -> None:
    if not isinstance(message, dict):
        raise invalid(f"messages.{index}: Input should be an object")
    if message.get("role") not in _ROLES:
        raise invalid(f"messages.{index}.role: Input should be 'user', 'assistant' or 'system'")
    if "content" not in message:
        raise invalid(f"messages.{index}.content: Field required")
    content = message["content"]
    if not isinstance(content, str | list):
        raise invalid(f"messages.{index}.content: Input should be a valid string or list")
    if not content and message["role"] != "assistant":
        raise invalid(f"messages.{index}: {message['role']} messages must have non-empty content")
    if isinstance(content, list):
        for position, block in enumerate(content):
            _check_block(f"messages.{index}.content.{position}", message["role"], block, version)


def _check_block(place: str, role: str, block: Any, version: str) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in _BLOCKS:
        raise invalid(
            f"{place}: Input tag {kind!r} found using 'type' does not match any of the expected tags"
        )
    if kind == "text":
        text = block.get("text")
        if not isinstance(text, str):
            raise invalid(f"{place}.text: Field required")
        if not text:
            raise invalid("messages: text content blocks must be non-empty")
    if version != NEWEST_VERSION:
        return
    if kind == "document" and role == "assistant":
        raise invalid(f"{place}: document blocks are not permitted in assistant messages")
    if kind == "text" and role == "user" and block.get("citations"):
        raise invalid(f"{place}.citations: citations are not permitted in user messages")


def _check_max_tokens(body: Mapping[str, Any], model: ServedModel) -> None:
    tokens = body["max_tokens"]
    if isinstance(tokens, bool) or not isinstance(tokens, int):
        raise invalid("max_tokens: Input should be a valid integer")
    if tokens < 0:
        raise invalid("max_tokens: Input should be greater than or equal to 0")
    most = model.facts.max_output_tokens
    if tokens > most:
        raise invalid(
            f"max_tokens: {tokens} > {most}, which is the maximum allowed number of output tokens "
            f"for {model.facts.id}"
        )
    if tokens == 0:
        _check_empty_answer(body)


def _check_empty_answer(body: Mapping[str, Any]) -> None:
    forced = (body.get("tool_choice") or {}).get("type") in {"any", "tool"}
    thinking = (body.get("thinking") or {}).get("type") == "enabled"
    if body.get("stream") or forced or thinking or (body.get("output_config") or {}).get("format"):
        raise invalid(
            "max_tokens: 0 cannot be combined with stream, output_config.format, a forced tool_choice "
            "or enabled thinking"
        )


def _check_thinking(body: Mapping[str, Any], model: ServedModel) -> None:
    thinking = body["thinking"]
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in THINKING_TYPES:
        raise invalid(f"thinking.type: Input should be one of {', '.join(THINKING_TYPES)}")
    if kind in model.refused_thinking:
        raise invalid(f"thinking.type: {kind!r} is not supported by {model.facts.id}")
    effort = (body.get("output_config") or {}).get("effort")
    off = kind in {"disabled", "between_tools"}
    if off and effort in _THINKING_OFF_EFFORTS and model.facts.id in _HIGH_EFFORT_NEEDS_THINKING:
        raise invalid(f"thinking.type: {kind!r} is only supported up to effort 'high'")
    if kind == "enabled":
        _check_budget(thinking.get("budget_tokens"), body.get("max_tokens"))


def _check_budget(budget: Any, most: Any) -> None:
    if not isinstance(budget, int):
        raise invalid("thinking.enabled.budget_tokens: Field required")
    if budget < _LEAST_THINKING_BUDGET:
        raise invalid(
            f"thinking.enabled.budget_tokens: Input should be greater than or equal to {_LEAST_THINKING_BUDGET}"
        )
    if most is not None and budget >= most:
        raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`")


def _check_output_config(body: Mapping[str, Any], model: ServedModel) -> None:
    config = body["output_config"]
    if not isinstance(config, dict):
        raise invalid("output_config: Input should be an object")
    effort = config.get("effort")
    if effort is not None and effort not in model.efforts:
        raise invalid(f"output_config.effort: {effort!r} is not supported by {model.facts.id}")
    wanted = config.get("format")
    if wanted is None:
        return
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        raise invalid("output_config.format.type: Input should be 'json_schema'")
    if not isinstance(wanted.get("schema"), dict):
        raise invalid("output_config.format.schema: Field required")
    _check_schema(wanted["schema"])


def _check_schema(schema: Any) -> None:
    """Every object must forbid additional properties (claude-api.md, 2.4)."""
    if isinstance(schema, list):
        for each in schema:
            _check_schema(each)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        raise invalid(
            "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false"
        )
    for each in schema.values():
        _check_schema(each)


def _check_tools(body: Mapping[str, Any], _: ServedModel) -> None:
    tools = body["tools"]
    if not isinstance(tools, list):
        raise invalid("tools: Input should be a valid list")
    names = set()
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise invalid(f"tools.{index}: Input should be an object")
        name = tool.get("name")
        if "type" not in tool or tool["type"] == "custom":
            if not isinstance(name, str):
                raise invalid(f"tools.{index}.custom.name: Field required")
            if not isinstance(tool.get("input_schema"), dict):
                raise invalid(f"tools.{index}.custom.input_schema: Field required")
        if name is not None and name in names:
            raise problems.ApiProblem(
                400, "tools: Tool names must be unique.", error_code="tool_name_conflict"
            )
        names.add(name)


def _check_tool_choice(body: Mapping[str, Any], model: ServedModel) -> None:
    choice = body["tool_choice"]
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in {"auto", "any", "tool", "none"}:
        raise invalid("tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'")
    if kind in {"any", "tool"}:
        if not model.forces_tools:
            raise invalid(f"tool_choice: forced tool use is not supported by {model.facts.id}")
        if not body.get("tools"):
            raise invalid("tool_choice: tools must be provided when tool use is forced")
    names = [tool.get("name") for tool in body.get("tools") or ()]
    if kind == "tool" and choice.get("name") not in names:
        raise invalid(f"tool_choice: Tool '{choice.get('name')}' not found in provided tools")


def _check_system(body: Mapping[str, Any], _: ServedModel) -> None:
    system = body["system"]
    if isinstance(system, str):
        return
    if not isinstance(system, list):
        raise invalid("system: Input should be a valid string or list")
    for index, block in enumerate(system):
        if not isinstance(block, dict) or not isinstance(block.get("text"), str):
            raise invalid(f"system.{index}.text: Field required")


def _check_stop_sequences(body: Mapping[str, Any], _: ServedModel) -> None:
    stops = body["stop_sequences"]
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise invalid("stop_sequences: Input should be a valid list of strings")
    if any(not stop.strip() for stop in stops):
        raise invalid("stop_sequences: each stop sequence must contain non-whitespace")


def _check_geography(body: Mapping[str, Any], model: ServedModel) -> None:
    if not model.takes_geo:
        raise invalid(f"inference_geo: not supported by {model.facts.id}")
    if body["inference_geo"] not in {"global", "us"}:
        raise invalid("inference_geo: Input should be 'global' or 'us'")


def _check_service_tier(body: Mapping[str, Any], _: ServedModel) -> None:
    if body["service_tier"] not in {"auto", "standard_only"}:
        raise invalid("service_tier: Input should be 'auto' or 'standard_only'")


def _check_speed(body: Mapping[str, Any], _: ServedModel) -> None:
    if body["speed"] not in {"standard", "fast"}:
        raise invalid("speed: Input should be 'standard' or 'fast'")


def _check_metadata(body: Mapping[str, Any], _: ServedModel) -> None:
    metadata = body["metadata"]
    if not isinstance(metadata, dict) or metadata.keys() - {"user_id"}:
        raise invalid("metadata: Extra inputs are not permitted")


_OPTIONAL_CHECKS: dict[str, Callable[[Mapping[str, Any], ServedModel], None]] = {
    "system": _check_system,
    "tools": _check_tools,
    "tool_choice": _check_tool_choice,
    "thinking": _check_thinking,
    "output_config": _check_output_config,
    "stop_sequences": _check_stop_sequences,
    "inference_geo": _check_geography,
    "service_tier": _check_service_tier,
    "speed": _check_speed,
    "metadata": _check_metadata,
}


def _check_fast(model: ServedModel, betas: frozenset[str]) -> None:
    if model.fast == "no" or (model.fast == "beta" and _FAST_BETA not in betas):
        raise invalid(f"speed: fast mode is not supported by {model.facts.id}")


def _check_sampling(body: Mapping[str, Any], model: ServedModel) -> None:
    """Under 2023-06-01 sampling is a matter of the model (claude-api.md, 1.3)."""
    temperature = body.get("temperature")
    if temperature is not None and not 0 <= temperature <= 1:
        raise invalid("temperature: range: 0..1")
    if model.takes_sampling:
        return
    for name, usual in (("temperature", 1), ("top_p", 1), ("top_k", None)):
        if body.get(name, usual) not in {usual, None}:
            raise invalid(f"{name}: only the default value is supported by {model.facts.id}")


def check_breakpoints(body: Mapping[str, Any]) -> None:
    """At most four cache breakpoints.

    Raises:
        ApiProblem: there are more.
    """
    count = caching.breakpoints(body)
    if count > caching.MOST_BREAKPOINTS:
        raise invalid(
            f"A maximum of {caching.MOST_BREAKPOINTS} blocks with cache_control may be provided. Found {count}."
        )


def check_window(input_tokens: int, model: ServedModel) -> None:
    """The prompt must fit the context window.

    Raises:
        ApiProblem: it does not.
    """
    window = model.facts.context_window
    if input_tokens > window:
        raise invalid(f"prompt is too long: {input_tokens} tokens > {window} maximum")
