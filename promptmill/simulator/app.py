"""The HTTP surface: which path is which endpoint, who is calling, and how a refusal is written out.

The one idea: this is aiohttp's low-level server with one handler, because a router, middlewares and request
objects cost more than most answers. Whatever stands before `/v1/` in a path is ignored, as a gateway would.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage

from promptmill import __version__
from promptmill.simulator import problems
from promptmill.simulator.admin import answer_admin
from promptmill.simulator.delivery import reset, wait_until
from promptmill.simulator.faults import Arrival
from promptmill.simulator.listings import (
    list_models,
    list_rate_limits,
    list_workspace_rate_limits,
    show_model,
)
from promptmill.simulator.messages import Call, Messages, read_body
from promptmill.simulator.organizations import Organization, read_key
from promptmill.simulator.problems import ApiProblem
from promptmill.simulator.scenario import Fault
from promptmill.simulator.simulation import Simulation
from promptmill.simulator.validation import check_version, read_betas

SIMULATOR_HEADER = "x-promptmill-simulator"
_ORGANIZATION_HEADER = "anthropic-organization-id"
_JSON = "application/json"
_HTML = "text/html; charset=UTF-8"
_MODELS = "/v1/models"
_WORKSPACES = "/v1/organizations/workspaces/"


class App:
    """The one handler."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self._messages = Messages(simulation)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request; a refusal becomes an error body with its request id."""
        headers = {"request-id": self._sim.next_id("req"), SIMULATOR_HEADER: __version__}
        path, _, query = request.raw_path.partition("?")
        begins = path.find("/v1/")
        try:
            if begins < 0:
                return await self._admin(request, path, query, headers)
            return await self._route(request, path[begins:].rstrip("/"), query, headers)
        except ApiProblem as problem:
            if begins >= 0:
                who = self._sim.organizations.name_of(headers.get(_ORGANIZATION_HEADER))
                self._sim.ledger.refuse(self._sim.clock.monotonic(), problem.status, problem.reason, who)
            return _write_out(problem, headers)

    async def _route(
        self, request: web.BaseRequest, path: str, query: str, headers: dict[str, str]
    ) -> web.StreamResponse:
        key = read_key(request.headers.get("x-api-key"), request.headers.get("authorization"))
        organization = self._sim.organizations.of_key(key)
        headers[_ORGANIZATION_HEADER] = organization.id
        if self._sim.faults.watches_door:
            gone = await self._at_door(request, organization)
            if gone is not None:
                return gone
        version = check_version(request.headers.get("anthropic-version"))
        if request.method == "POST":
            betas = read_betas(request.headers.getall("anthropic-beta", ()))
            call = Call(request, organization, version, betas, headers)
            if path == "/v1/messages":
                return await self._messages.create(call)
            if path == "/v1/messages/count_tokens":
                return await self._messages.count_tokens(call)
        if request.method == "GET":
            return _json(self._look_up(path, query, organization, key, version), headers)
        raise ApiProblem(404, "Not Found")

    def _look_up(
        self, path: str, query: str, organization: Organization, key: str, version: str
    ) -> dict[str, Any]:
        many = parse_qs(query)
        one = {name: values[-1] for name, values in many.items()}
        if path == _MODELS:
            stages = many.get("lifecycle[]", []) + many.get("lifecycle", [])
            return list_models(self._sim, one, [each for stage in stages for each in stage.split(",")])
        if path.startswith(_MODELS + "/"):
            return show_model(self._sim, path.removeprefix(_MODELS + "/"))
        if path == "/v1/organizations/rate_limits":
            return list_rate_limits(self._sim, organization, key, version, one)
        if path.startswith(_WORKSPACES) and path.endswith("/rate_limits"):
            workspace = path[len(_WORKSPACES) : -len("/rate_limits")]
            return list_workspace_rate_limits(self._sim, organization, key, version, one, workspace=workspace)
        raise ApiProblem(404, "Not Found")

    async def _admin(
        self, request: web.BaseRequest, path: str, query: str, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        if not path.startswith("/_admin/"):
            raise ApiProblem(404, "Not Found")
        raw = await read_body(request)
        asked = parse_qs(query)
        detail = asked.get("detail") == ["1"]
        after = _whole_number(asked.get("after", ["0"])[-1])
        name = path.removeprefix("/_admin/")
        answer = answer_admin(self._sim, request.method, name, raw, detail=detail, after=after)
        return _json(answer, headers)

    async def _at_door(
        self, request: web.BaseRequest, organization: Organization
    ) -> web.StreamResponse | None:
        """What an outage or a revoked key answers; None when the way is free.

        Raises:
            ApiProblem: 401 or 503.
        """
        sim = self._sim
        now = sim.clock.monotonic()
        fault = sim.faults.at_door(
            Arrival(
                at_s=sim.ledger.since_start(now),
                organization=organization.name,
                billed_nanos=sim.ledger.billed_to(organization.name),
            )
        )
        if fault is None:
            return None
        sim.ledger.inject(fault.kind)
        if fault.kind == "key_revoked":
            raise problems.wrong_key()
        return await self._out_of_service(fault, request, now)

    async def _out_of_service(self, fault: Fault, request: web.BaseRequest, now: float) -> web.StreamResponse:
        if fault.mode == "unavailable":
            raise ApiProblem(503, "Service unavailable", reason="fault:outage")
        if fault.mode == "hang":
            await wait_until(now + fault.pause_s, self._sim.clock)
        return reset(request)


def make_server(simulation: Simulation) -> web.Server:
    """The protocol factory for `loop.create_server`; needs a running event loop."""

    def make_request(
        message: RawRequestMessage,
        payload: Any,
        protocol: Any,
        writer: AbstractStreamWriter,
        task: Any,
    ) -> web.BaseRequest:
        return web.BaseRequest(
            message,
            payload,
            protocol,
            writer,
            task,
            task.get_loop(),
            client_max_size=problems.MOST_BODY_BYTES,
        )

    return web.Server(App(simulation).handle, request_factory=make_request, access_log=None)


def _whole_number(text: str) -> int:
    if not text.isdecimal():
        raise problems.invalid("after: Input should be a whole number")
    return int(text)


def _json(value: dict[str, Any], headers: Mapping[str, str]) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), headers={**headers, "Content-Type": _JSON})


def _write_out(problem: ApiProblem, headers: Mapping[str, str]) -> web.Response:
    kind = _JSON if problem.page is None else _HTML
    body = problem.page or json.dumps(problem.body(headers["request-id"]))
    described = {**headers, **problem.headers, "Content-Type": kind}
    return web.Response(status=problem.status, body=body.encode(), headers=described)
