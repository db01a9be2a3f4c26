"""What the simulated Claude costs by itself, so that other figures can subtract it.

Requests per second and CPU per request of the server process, beside a bare aiohttp server that answers a
constant. The caller is a loop of raw connections in this process; it shares the machine with the server, so
on two cores the rate is a lower bound and the CPU per request is the figure to read.

    .venv/bin/python bench/simulator.py --requests 20000
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from promptmill.testing import simulated_claude

BARE = """
import asyncio
from aiohttp import web
async def answer(request):
    await request.read()
    return web.Response(body=BODY, content_type="application/json")
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(web.Server(answer, access_log=None), "127.0.0.1", 0)
    print("http://127.0.0.1:%d" % server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
BODY = b"{" + b" " * 1500 + b"}"
try:
    import uvloop as loops
except ImportError:
    loops = asyncio
loops.run(main())
"""
ROOMY = {"rpm": 100_000_000, "itpm": 10_000_000_000, "otpm": 10_000_000_000}
TIGHT = {"rpm": 1, "itpm": 10_000_000_000, "otpm": 10_000_000_000}


def main() -> None:
    """Measure every case and print one row each."""
    options = read_options()
    print(f"{'':<34}{'requests/s':>12}{'CPU ms/request':>16}")
    with bare_server() as (url, pid):
        show("bare aiohttp server", measure(url, pid, options.requests, options.connections))
    cases: list[tuple[str, dict[str, Any], bool]] = [
        ("no limits, no latency", {}, False),
        ("with limits", ROOMY, False),
        ("all refused (429)", TIGHT, False),
        ("streamed, no limits, no latency", {}, True),
    ]
    for name, config, streamed in cases:
        with simulated_claude(**config) as claude:
            count = options.requests // 4 if streamed else options.requests
            show(name, measure(claude.url, claude.pid or 0, count, options.connections, streamed=streamed))
    slow = {**ROOMY, "first_token_s": 0.3, "tokens_per_s": 400.0}
    for name, streamed in (("1,000 in flight", False), ("1,000 in flight, streamed", True)):
        with simulated_claude(**slow) as claude:
            show(name, measure(claude.url, claude.pid or 0, 4_000, 1_000, streamed=streamed))


def measure(
    url: str, pid: int, requests: int, connections: int, *, streamed: bool = False
) -> tuple[float, float]:
    """(requests per second, milliseconds of the server's CPU per request)."""
    server = psutil.Process(pid)
    asyncio.run(call(url, 200, 8, streamed=streamed))
    before, begun = cpu_of(server), time.perf_counter()
    asyncio.run(call(url, requests, connections, streamed=streamed))
    took = time.perf_counter() - begun
    return requests / took, 1000 * (cpu_of(server) - before) / requests


async def call(url: str, requests: int, connections: int, *, streamed: bool) -> None:
    """Send distinct prompts over so many connections, each one request at a time."""
    host, port = url.removeprefix("http://").split(":")
    numbers = iter(range(requests))

    async def one() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for number in numbers:
            writer.write(request_bytes(number, streamed=streamed))
            await read_reply(reader)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(connections)))


async def read_reply(reader: asyncio.StreamReader) -> None:
    """Read one response to its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" in head:
        await reader.readuntil(b"\r\n0\r\n\r\n")
        return
    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))


def request_bytes(number: int, *, streamed: bool) -> bytes:
    """A Messages request of about 350 bytes of prompt."""
    text = f"Question {number}. " + "How many eggs does the duck lay per day? " * 8
    body = {"model": "claude-sonnet-5", "max_tokens": 1024, "messages": [{"role": "user", "content": text}]}
    data = json.dumps(body | {"stream": True} if streamed else body).encode()
    head = (
        "POST /v1/messages HTTP/1.1\r\nhost: simulator\r\nx-api-key: bench\r\nanthropic-version: 2026-10-21\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of a process, its own and the kernel's for it."""
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def bare_server() -> Iterator[tuple[str, int]]:
    """The baseline: (url, process id)."""
    with subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def show(name: str, figures: tuple[float, float]) -> None:
    """One row of the table."""
    rate, cpu = figures
    print(f"{name:<34}{rate:>12.0f}{cpu:>16.3f}", flush=True)


def read_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=32)
    return parser.parse_args()


if __name__ == "__main__":
    main()
