"""One call within its permit: what to say about it before the block ends.

    async with limiter.permit(pool, amounts, patience=60) as call:
        reply = await client.post(…)
        call.used(Amounts(1, …), headroom)

Whatever is said is reported when the block ends; the last word counts. A block that ends without a word, also
by an exception or a cancellation, leaves the estimate charged, because the call may have been made.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from promptmill.dimensions import Amounts, Dimension, Headroom
from promptmill.limits.policy import Permit

if TYPE_CHECKING:
    from promptmill.limits.limiter import Limiter

REFUSED: Final = 429

Word = Callable[["Limiter"], Awaitable[None]]


class Call:
    """What the program says about the call it made.

    Attributes:
        permit: the right to make it, with the amounts that were reserved.
    """

    def __init__(self, permit: Permit) -> None:
        self.permit = permit
        self._word: Word = lambda limiter: limiter.settle(permit, None)

    def used(self, amounts: Amounts | None, headroom: Headroom | None = None) -> None:
        """The call was answered.

        Args:
            amounts: input that counts against the limit (uncached and cache writes) and output; None when it is
                not known, which leaves the estimate charged.
            headroom: what the headers of the reply said.
        """
        self._word = lambda limiter: limiter.settle(self.permit, amounts, headroom)

    def refused(
        self,
        status: int,
        *,
        retry_after: float | None = None,
        dimension: Dimension | None = None,
        ramp: bool = False,
        headroom: Headroom | None = None,
    ) -> None:
        """The server refused the call: a 429 pauses the pool for everybody, anything else (529) eases its pace.

        Leave the block at once, for the pause begins when it ends.

        Args:
            status: of the reply.
            retry_after: seconds to wait, as the server said.
            dimension: the limit that was reached, where the server named it.
            ramp: whether the server minded the growth, not the pace (`ramp_limit_exceeded`).
            headroom: what the headers of the reply said.
        """
        self._word = lambda limiter: limiter.penalise(
            self.permit,
            status=429 if status == REFUSED else 529,
            retry_after=retry_after,
            dimension=dimension,
            ramp=ramp,
            headroom=headroom,
        )

    def not_sent(self) -> None:
        """Nothing reached the server: everything is given back."""
        self._word = lambda limiter: limiter.release(self.permit)

    async def tell(self, limiter: "Limiter") -> None:
        """Report the last word."""
        await self._word(limiter)
