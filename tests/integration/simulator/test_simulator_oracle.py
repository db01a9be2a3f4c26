"""The official SDK as a judge: what it makes of the simulator's replies, streams, errors and lists."""

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest

from promptmill.testing import SimulatorHandle

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def client(simulator: SimulatorHandle) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="sk-ant-test", base_url=simulator.url, max_retries=0) as client:
        yield client


def without_id(message: anthropic.types.Message) -> dict[str, Any]:
    return {
        name: value
        for name, value in message.model_dump().items()
        if name not in {"id", "container", "diagnostics"}
    }


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": "claude-haiku-4-5", "thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 3000},
        {"model": "claude-opus-5", "thinking": {"type": "adaptive", "display": "summarized"}},
        {"max_tokens": 5},
        {"stop_sequences": ["the"]},
        {"tools": [{"name": "get", "input_schema": {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}}], "tool_choice": {"type": "any"}},
    ],
    ids=["text", "enabled thinking", "adaptive thinking", "cut", "stop sequence", "tool"],
)  # fmt: skip
def test_a_folded_stream_is_the_plain_message(
    client: anthropic.Anthropic, prompt: Make, fields: dict[str, Any]
) -> None:
    plain = client.messages.create(**prompt("小明 has how many eggs 🙂?", **fields))
    with client.messages.stream(**prompt("小明 has how many eggs 🙂?", **fields)) as stream:
        folded = stream.get_final_message()
    assert plain.stop_reason is not None
    assert without_id(folded) == without_id(plain)


def test_parsed_output_fits_the_schema(client: anthropic.Anthropic, prompt: Make) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "integer"}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    message = client.messages.create(
        **prompt(output_config={"format": {"type": "json_schema", "schema": schema}})
    )
    text = next(block.text for block in message.content if block.type == "text")
    assert text.startswith('{"answer": ')


def test_count_tokens_equals_the_billed_input(client: anthropic.Anthropic, prompt: Make) -> None:
    body = prompt(system="Be brief.")
    counted = client.messages.count_tokens(**{name: body[name] for name in ("model", "messages", "system")})
    assert counted.input_tokens == client.messages.create(**body).usage.input_tokens


def test_models_come_in_pages_newest_first(client: anthropic.Anthropic) -> None:
    first = client.models.list(limit=3)
    everything = list(first)
    assert (first.has_more, len(first.data)) == (True, 3)
    assert len({model.id for model in everything}) == len(everything) > 10
    assert [model.created_at for model in everything] == sorted(
        (model.created_at for model in everything), reverse=True
    )
    assert all(model.lifecycle in {"active", "deprecated"} for model in everything)
    back = client.models.list(limit=2, before_id=everything[4].id)
    assert [model.id for model in back.data] == [model.id for model in everything[2:4]]


def test_retired_models_are_listed_when_asked_for(client: anthropic.Anthropic) -> None:
    retired = list(client.models.list(lifecycle=["retired"], limit=1000))
    assert "claude-3-haiku-20240307" in {model.id for model in retired}


def test_a_model_is_found_by_its_alias(client: anthropic.Anthropic) -> None:
    model = client.models.retrieve("claude-haiku-4-5")
    assert (model.id, model.max_tokens, model.max_input_tokens) == (
        "claude-haiku-4-5-20251001",
        64_000,
        200_000,
    )
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("claude-9")


def test_an_admin_key_reads_the_limits(simulator: SimulatorHandle, client: anthropic.Anthropic) -> None:
    simulator.set_limits(rpm=50, itpm=30_000)
    with anthropic.Anthropic(api_key="sk-ant-admin01-x", base_url=simulator.url, max_retries=0) as admin:
        pages = admin.organization.rate_limits.list(limit=3)
        entries = list(pages)
        opus = list(admin.organization.rate_limits.list(model="claude-opus-4-8"))
    assert len(pages.data) == 3 < len(entries)
    assert {(limit.type, limit.value) for limit in entries[0].limits} == {
        ("requests_per_minute", 50),
        ("input_tokens_per_minute_cache_aware", 30_000),
    }
    assert {"claude-opus-4-5", "claude-opus-4-5-20251101", "claude-opus-4-7"} <= set(opus[0].models or ())
    with pytest.raises(anthropic.AuthenticationError):
        client.organization.rate_limits.list()


def test_a_workspace_has_the_limits_of_its_organization(simulator: SimulatorHandle) -> None:
    simulator.set_limits(rpm=50, itpm=30_000)
    with anthropic.Anthropic(api_key="sk-ant-admin01-x", base_url=simulator.url, max_retries=0) as admin:
        limits = admin.organization.workspaces.rate_limits
        own = list(limits.list("wrkspc_1"))
        inherited = list(limits.list("wrkspc_1", include_inherited=True, limit=3))
        with pytest.raises(anthropic.NotFoundError):
            limits.list("nothing")
    assert own == []
    assert len(inherited) > 3
    assert inherited[0].workspace_id == "wrkspc_1"
    assert [(each.value, each.org_limit, each.source.type) for each in inherited[0].limits] == [
        (50, 50, "organization"),
        (30_000, 30_000, "organization"),
    ]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "rate_limited", "retry_after_s": 3}, anthropic.RateLimitError),
        ({"kind": "rate_limited", "ramp": True}, anthropic.RampLimitExceededError),
        ({"kind": "spend_cap"}, anthropic.EnforcedSpendLimitReachedError),
        ({"kind": "spend_cap", "form": "contract"}, anthropic.ContractSpendLimitReachedError),
        ({"kind": "spend_cap", "form": "organization"}, anthropic.BadRequestError),
        ({"kind": "spend_cap", "form": "billing"}, anthropic.PaymentRequiredError),
        ({"kind": "overloaded"}, anthropic.OverloadedError),
        ({"kind": "server_error", "status": 502, "html": True}, anthropic.InternalServerError),
        ({"kind": "server_error", "status": 504}, anthropic.GatewayTimeoutError),
        ({"kind": "server_error", "status": 409}, anthropic.ConflictError),
        ({"kind": "key_revoked"}, anthropic.AuthenticationError),
        ({"kind": "forbidden"}, anthropic.PermissionDeniedError),
        ({"kind": "reset"}, anthropic.APIConnectionError),
        ({"kind": "lost_reply"}, anthropic.APIConnectionError),
    ],
)
def test_the_sdk_knows_the_error(
    simulator: SimulatorHandle,
    client: anthropic.Anthropic,
    prompt: Make,
    fault: dict[str, Any],
    error: type[Exception],
) -> None:
    simulator.set_scenario(fault=[fault])
    with pytest.raises(error):
        client.messages.create(**prompt())


def test_the_sdk_raises_an_error_event_as_a_bare_status_error(
    simulator: SimulatorHandle, client: anthropic.Anthropic, prompt: Make
) -> None:
    simulator.set_scenario(fault=[{"kind": "stream_error"}])
    with pytest.raises(anthropic.APIStatusError) as caught, client.messages.stream(**prompt()) as stream:
        stream.get_final_message()
    assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")


def test_the_sdk_takes_a_cut_stream_for_a_message_without_stop_reason(
    simulator: SimulatorHandle, client: anthropic.Anthropic, prompt: Make
) -> None:
    simulator.set_scenario(fault=[{"kind": "cut"}])
    with client.messages.stream(**prompt()) as stream:
        assert stream.get_final_message().stop_reason is None


def test_the_sdk_reads_a_stream_that_drips(
    simulator: SimulatorHandle, client: anthropic.Anthropic, prompt: Make
) -> None:
    body = prompt("小明有几个苹果", max_tokens=100)
    plain = client.messages.create(**body)
    simulator.set_scenario(fault=[{"kind": "slow_drip", "piece_bytes": 3, "pause_s": 0.0001}])
    with client.messages.stream(**body) as stream:
        assert without_id(stream.get_final_message()) == without_id(plain)
