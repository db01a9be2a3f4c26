"""What the connections keep of a call while its answer is waited for."""

import asyncio

from promptmill.claude.transport import Connections, Content, Request


async def test_what_was_sent_is_let_go_while_the_answer_is_waited_for() -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        assert await reader.readexactly(length) == b"a long prompt" * 20_000
        arrived.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    connections = Connections(url, most=1, connect=5.0)
    content = Content(b"a long prompt" * 20_000)
    call = asyncio.create_task(connections.send(Request("POST", url, {}, 30.0, content)))
    await arrived.wait()
    assert (content.begun, await content.as_bytes()) == (True, b"")
    go_on.set()
    assert await (await call).read() == b"ok"
    await connections.aclose()
    server.close()
