"""Every script on a real Redis Cluster of one node, which refuses a script whose keys lie in several slots.

Such a node also refuses keys that a script names without declaring them in another slot, so a key built inside a
script would be found out too.
"""

import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError, ResponseError

from promptmill.dimensions import Amounts, Headroom
from promptmill.embedded.redis import find_server
from promptmill.limits import Ceilings, Pacing, Pool, RedisLimiter
from promptmill.limits.desk import Penalty, Release, Settlement
from promptmill.limits.scripts import Call, Calls, list_pools
from promptmill.limits.wire import Wire
from tests.ports import free_port

POOL = Pool("account", "group")
CALL = Amounts(1, 100, 20)
CEILINGS = Ceilings(6000, 600_000, None)
SAID = Headroom(6000, 6000, 600_000, 600_000, 90_000, 90_000)
NOBODY = Calls(POOL, "nobody")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a node that serves all slots."""
    port, bus_port = free_port(), free_port()
    options = f"--bind 127.0.0.1 --port {port} --cluster-port {bus_port} --cluster-enabled yes"
    server = subprocess.Popen(
        [str(find_server()), *options.split(), "--save", ""],
        cwd=tmp_path_factory.mktemp("cluster"),
        stdout=subprocess.DEVNULL,
    )
    try:
        with Redis(port=port, decode_responses=True) as client:
            serve_all_slots(client)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def serve_all_slots(client: Any) -> None:
    assigned, deadline = False, time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if not assigned:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
                assigned = True
            if "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")):
                return
        except (RedisError, OSError):
            pass
        time.sleep(0.02)
    pytest.fail("the cluster did not come up")


@pytest.fixture
async def wire(cluster: str) -> AsyncIterator[Wire]:
    wire = Wire(cluster, Pacing())
    yield wire
    await wire.aclose()


CALLS = {
    "acquire": NOBODY.acquire([], CEILINGS, None),
    "beat": NOBODY.beat(None),
    "confirm": NOBODY.confirm(None),
    "expire": NOBODY.expire("somebody", None),
    "forget": NOBODY.forget(),
    "peek": NOBODY.peek(None),
    "penalise": NOBODY.report(Penalty("none", 1, False, 1.0, None, SAID), CEILINGS, None),
    "pools": list_pools(None),
    "register": NOBODY.register(None),
    "release": NOBODY.report(Release("none"), CEILINGS, None),
    "settle": NOBODY.report(Settlement("none", CALL, SAID), CEILINGS, None),
    "teach": NOBODY.teach(CEILINGS, CEILINGS, None),
}


def test_no_script_is_forgotten_here() -> None:
    scripts = {path.stem for path in Path(str(files("promptmill.limits") / "lua")).glob("*.lua")}
    assert set(CALLS) == scripts - {"prelude"}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_every_script_runs_on_a_cluster(wire: Wire, call: Call) -> None:
    (reply,) = await wire.run([call])
    assert not isinstance(reply, ResponseError)


async def test_a_cluster_refuses_keys_of_two_slots(wire: Wire) -> None:
    keys = (CALLS["register"].keys[0], *CALLS["acquire"].keys[1:])
    (reply,) = await wire.run([Call("acquire", keys, CALLS["acquire"].arguments)])
    assert isinstance(reply, ResponseError)


async def test_a_limiter_works_on_a_cluster_and_all_its_keys_expire(cluster: str) -> None:
    async with RedisLimiter(cluster, ceilings=lambda _: CEILINGS, pacing=Pacing(ramp_start=1.0)) as limiter:
        await limiter.teach(POOL, Ceilings(output_tokens=90_000))
        held = await limiter.acquire(POOL, CALL, patience=5)
        async with limiter.permit(POOL, CALL, patience=5) as call:
            call.used(CALL, SAID)
        async with limiter.permit(POOL, CALL, patience=5) as call:
            call.refused(529)
        async with limiter.permit(POOL, CALL, patience=5) as call:
            call.not_sent()
        await limiter.beat()
        assert (await limiter.peek(POOL)).in_flight == 1
        assert await limiter.pools() == [POOL]
        await limiter.release(held)
    async with AsyncRedis.from_url(cluster, decode_responses=True) as client:
        lifetimes = {name: await client.ttl(name) async for name in client.scan_iter()}
    assert lifetimes
    assert all(seconds > 0 for seconds in lifetimes.values()), lifetimes
