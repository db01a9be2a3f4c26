"""Bodies of answers, read up to a bound: whatever answers at the address, a process full of calls keeps its memory.

What counts is the text as it comes out of a compressed body.
"""

from promptmill.claude.replies import MalformedAnswer
from promptmill.claude.transport import BROKEN, Response

#: Bytes of an answer, plain or streamed. The longest of any model is 128,000 tokens (claude-api.md, 9): this is 500 bytes for each.
LONGEST_ANSWER = 64_000_000

#: Bytes that are read of an error. The API's own are some hundred.
LONGEST_ERROR = 65_536


async def read_answer(response: Response) -> bytes:
    """The whole body.

    Raises:
        MalformedAnswer: it is longer than any answer.
    """
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size = grown(size, piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def grown(size: int, piece: bytes) -> int:
    """The bytes read so far, with this piece.

    Raises:
        MalformedAnswer: they are more than any answer has.
    """
    size += len(piece)
    if size > LONGEST_ANSWER:
        raise MalformedAnswer(f"the answer is longer than {LONGEST_ANSWER // 1_000_000} MB")
    return size


async def read_error(response: Response) -> str:
    """The body of a refusal as far as it came: status and headers say enough without it."""
    body = bytearray()
    try:
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > LONGEST_ERROR:
                break
    except BROKEN:
        pass
    return body[:LONGEST_ERROR].decode("utf-8", "replace")
