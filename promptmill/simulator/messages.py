"""POST /v1/messages and /v1/messages/count_tokens: the way of one request, top to bottom.

The one idea: check, meet the scenario's fate, be admitted or refused; from there on everything that will happen
is planned before the first byte is sent: what is answered, when, what is debited and when.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from promptmill.catalogue import limit_group
from promptmill.dimensions import Dimension
from promptmill.prompts import FINGERPRINT_LENGTH, canonical_json
from promptmill.simulator import problems
from promptmill.simulator.answers import Direction, Pace
from promptmill.simulator.caching import CachePlan
from promptmill.simulator.delivery import deliver_plain, deliver_stream, reset, wait_until
from promptmill.simulator.faults import Arrival
from promptmill.simulator.headers import rate_limit_headers
from promptmill.simulator.ledger import Fate
from promptmill.simulator.limits import Pool, Refusal
from promptmill.simulator.models import ServedModel
from promptmill.simulator.organizations import Organization
from promptmill.simulator.problems import ApiProblem, invalid
from promptmill.simulator.replies import Reply, make_reply
from promptmill.simulator.scenario import REFUSING, Fault
from promptmill.simulator.script import plain_script, stream_script
from promptmill.simulator.simulation import Simulation
from promptmill.simulator.tokens import count_prompt, scale_by
from promptmill.simulator.validation import check_breakpoints, check_request, check_window


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Call:
    """The HTTP side of a request, once the caller is known.

    Attributes:
        request: as aiohttp has it.
        organization: whose key it carries.
        version: of the API.
        betas: names in the beta header.
        headers: that every response to it carries.
    """

    request: web.BaseRequest
    organization: Organization
    version: str
    betas: frozenset[str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Order:
    """A valid request for an answer."""

    body: dict[str, Any]
    model: ServedModel
    streamed: bool
    text: str
    fingerprint: str
    input_tokens: int
    is_cached: bool

    @property
    def fast(self) -> bool:
        """It runs in fast mode, where the model has one."""
        return self.body.get("speed") == "fast" and self.model.fast != "ignored"

    @property
    def group(self) -> str:
        """Whose limits it counts against."""
        return limit_group(self.model.facts.group, "fast" if self.fast else None)


class Messages:
    """Answers Messages requests."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation

    async def create(self, call: Call) -> web.StreamResponse:
        """POST /v1/messages.

        Raises:
            ApiProblem: the request is refused.
        """
        ledger, clock = self._sim.ledger, self._sim.clock
        ledger.arrive(clock.monotonic())
        try:
            return await self._create(call)
        finally:
            ledger.leave(clock.monotonic())

    async def count_tokens(self, call: Call) -> web.StreamResponse:
        """POST /v1/messages/count_tokens.

        Raises:
            ApiProblem: the request is refused.
        """
        raw = await read_body(call.request)
        body = _parse(raw)
        today = self._sim.clock.now().date()
        model = check_request(
            body, menu=self._sim.menu, version=call.version, betas=call.betas, on=today, counting=True
        )
        self._limit_counting(call, model)
        self._sim.ledger.count()
        tokens = _count(body, model)
        return web.Response(
            body=json.dumps({"input_tokens": tokens}).encode(),
            headers={**call.headers, "Content-Type": _JSON},
        )

    async def _create(self, call: Call) -> web.StreamResponse:
        order = self._read(await read_body(call.request), call)
        fault = self._meet_fate(order, call)
        if fault is not None and fault.kind in REFUSING:
            return await self._refuse(fault, order, call)
        if fault is not None and fault.kind == "hold":
            await self._sim.next_scenario()
            fault = None
        now = self._sim.clock.monotonic()
        organization, group = call.organization, order.group
        cache = CachePlan(uncached=order.input_tokens)
        if order.is_cached:
            cache = organization.cache.plan(order.body, order.input_tokens, order.model, now)
        pool = self._sim.organizations.pool(organization, group, now)
        # An answer is worked out for a call that is refused only where its length decides.
        planned = self._plan_reply(order, cache, fault) if pool.ceilings.acceleration else None
        refusal = pool.admit(now, cache.limited, planned[0].answer.output_tokens if planned else 0)
        if refusal is not None:
            raise self._over_limit(refusal, pool, order, call)
        reply, pace = planned or self._plan_reply(order, cache, fault)
        self._sim.ledger.admit(now, cache.limited)
        organization.cache.commit(cache, now=now, begins_at=now + pace.first_token_s)
        return await self._deliver(call, order, reply, pace, fault, pool, now)

    def _read(self, raw: bytes, call: Call) -> Order:
        body = _parse(raw)
        today = self._sim.clock.now().date()
        model = check_request(body, menu=self._sim.menu, version=call.version, betas=call.betas, on=today)
        streamed = bool(body.pop("stream", False))
        is_cached = b'"cache_control"' in raw
        if is_cached:
            check_breakpoints(body)
        input_tokens = _count(body, model)
        check_window(input_tokens, model)
        text = canonical_json(body)
        return Order(
            body=body,
            model=model,
            streamed=streamed,
            text=text,
            fingerprint=hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH],
            input_tokens=input_tokens,
            is_cached=is_cached,
        )

    def _meet_fate(self, order: Order, call: Call) -> Fault | None:
        sim = self._sim
        if not sim.faults.watches_house:
            return None
        name = call.organization.name
        fault = sim.faults.in_house(
            Arrival(
                at_s=sim.ledger.since_start(sim.clock.monotonic()),
                organization=name,
                billed_nanos=sim.ledger.billed_to(name),
                model=order.model.facts.id,
                streamed=order.streamed,
                fingerprint=order.fingerprint,
                text=order.text,
            )
        )
        if fault is not None:
            sim.ledger.inject(fault.kind)
        return fault

    async def _refuse(self, fault: Fault, order: Order, call: Call) -> web.StreamResponse:
        sim = self._sim
        if fault.kind in {"reset", "hang"}:
            if fault.kind == "hang":
                await wait_until(sim.clock.monotonic() + fault.pause_s, sim.clock)
            return reset(call.request)
        raise self._injected_problem(fault, order, call)

    def _injected_problem(self, fault: Fault, order: Order, call: Call) -> ApiProblem:
        headers = {} if fault.retry_after_s is None else {"retry-after": str(fault.retry_after_s)}
        model = order.model.facts.id
        match fault.kind:
            case "overloaded":
                return ApiProblem(529, "Overloaded", headers=headers, reason=_reason(fault))
            case "spend_cap":
                return problems.spend_cap(fault.form)
            case "forbidden":
                return problems.forbidden(model)
            case "server_error":
                return ApiProblem(
                    fault.status,
                    "Internal server error",
                    headers=headers,
                    reason=_reason(fault),
                    page=problems.proxy_page(fault.status) if fault.html else None,
                )
        pool = self._sim.organizations.pool(call.organization, order.group, self._sim.clock.monotonic())
        pool.advance(self._sim.clock.monotonic())
        dimension = None if fault.ramp else Dimension(fault.dimension or Dimension.REQUESTS)
        return problems.rate_limited(
            dimension,
            limit=pool.ceilings.per_minute[dimension] if dimension else 0,
            organization_id=call.organization.id,
            model=model,
            headers={**headers, **self._limit_headers(pool, order)},
            reason=_reason(fault),
        )

    def _over_limit(self, refusal: Refusal, pool: Pool, order: Order, call: Call) -> ApiProblem:
        limit = pool.ceilings.per_minute[refusal.dimension] if refusal.dimension else 0
        return problems.rate_limited(
            refusal.dimension,
            limit=limit,
            organization_id=call.organization.id,
            model=order.model.facts.id,
            headers={"retry-after": str(refusal.retry_after), **self._limit_headers(pool, order)},
        )

    def _plan_reply(self, order: Order, cache: CachePlan, fault: Fault | None) -> tuple[Reply, Pace]:
        author = self._sim.author
        dice = author.dice(order.fingerprint)
        direction = None
        if fault is not None and fault.kind == "answer":
            direction = Direction(fault.reply, fault.stop_reason, fault.category, fault.output_tokens)
        answer = author.answer(order.body, order.model, order.input_tokens, dice, direction)
        reply = make_reply(self._sim.next_id("msg"), order.body, order.model, answer, cache)
        return reply, author.pace(dice, answer.output_tokens)

    async def _deliver(  # noqa: PLR0917  the whole plan, handed over once
        self,
        call: Call,
        order: Order,
        reply: Reply,
        pace: Pace,
        fault: Fault | None,
        pool: Pool,
        now: float,
    ) -> web.StreamResponse:
        clock = self._sim.clock
        script = (stream_script if order.streamed else plain_script)(reply, pace, fault)
        produced = reply.answer.output_tokens
        if script.share < 1:
            produced = max(reply.tokens_at_start, round(produced * script.share))
        begins, seconds = now + pace.first_token_s, pace.seconds * script.share
        pool.produce(begins, seconds, produced)
        self._sim.ledger.plan(
            now,
            reply.cache.limited,
            begins=begins,
            seconds=seconds,
            output_tokens=produced,
            prompt=order.fingerprint,
        )
        pool.advance(now)
        headers = {**call.headers, **self._limit_headers(pool, order)}
        book = self._bookkeeper(call, order, reply, produced)
        if fault is not None and fault.kind == "lost_reply":
            await wait_until(now + pace.total_s, clock)
            book(Fate.LOST)
            return reset(call.request)
        deliver = deliver_stream if order.streamed else deliver_plain
        return await deliver(call.request, script, admitted_at=now, headers=headers, clock=clock, book=book)

    def _bookkeeper(self, call: Call, order: Order, reply: Reply, produced: int) -> Callable[[Fate], None]:
        ledger, clock = self._sim.ledger, self._sim.clock

        def book(fate: Fate) -> None:
            ledger.bill(
                fate,
                reply.used(produced),
                now=clock.monotonic(),
                request_id=call.headers["request-id"],
                fingerprint=order.fingerprint,
                model=reply.model,
                organization=call.organization.name,
                streamed=order.streamed,
                told=reply.used(reply.tokens_at_start) if fate is Fate.CUT else None,
                inference_geo=reply.inference_geo,
                speed=reply.speed,
            )

        return book

    def _limit_headers(self, pool: Pool, order: Order) -> dict[str, str]:
        return rate_limit_headers(pool, self._sim.clock.now().timestamp(), fast=order.fast)

    def _limit_counting(self, call: Call, model: ServedModel) -> None:
        now = self._sim.clock.monotonic()
        bucket = self._sim.organizations.counting_bucket(call.organization, now)
        if bucket is None:
            return
        bucket.advance(now)
        wait = bucket.wait_for(1)
        if wait:
            raise problems.rate_limited(
                Dimension.REQUESTS,
                limit=self._sim.config.count_tokens_rpm,
                organization_id=call.organization.id,
                model=model.facts.id,
                headers={"retry-after": str(Refusal(Dimension.REQUESTS, wait).retry_after)},
                reason="count_tokens",
            )
        bucket.level -= 1


async def read_body(request: web.BaseRequest) -> bytes:
    """The body of a request.

    Raises:
        ApiProblem: 413, it is over 32 MB.
    """
    if (request.content_length or 0) > problems.MOST_BODY_BYTES:
        raise problems.too_large()
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise problems.too_large() from None


def _parse(raw: bytes) -> Any:
    try:
        return _DECODER.decode(raw.decode())
    except (ValueError, RecursionError) as error:
        raise invalid(f"The request body is not valid JSON: {error}") from None


def _count(body: dict[str, Any], model: ServedModel) -> int:
    try:
        return scale_by(model.token_factor, count_prompt(body, dense=model.facts.dense_tokenizer))
    except UnicodeEncodeError:
        raise invalid("The request body is not valid JSON: no low surrogate in string") from None


def _reason(fault: Fault) -> str:
    return f"fault:{fault.kind}"
