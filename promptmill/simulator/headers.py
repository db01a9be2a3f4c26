"""The `anthropic-ratelimit-*` headers of a reply (claude-api.md, 5.5).

Token levels are rounded to the nearest 1,000; a reset is the moment of full refill, not of the next useful try.
"""

import math
import time
from functools import lru_cache

from promptmill.simulator.limits import Bucket, Pool

_ROUNDED_TO = 1000


def rate_limit_headers(pool: Pool, wall: float, *, fast: bool = False) -> dict[str, str]:
    """The headers that describe a pool as it stands; dimensions without a limit have none.

    Args:
        pool: advanced to the present.
        wall: the present in seconds since the epoch.
        fast: the pool of fast mode, whose tokens go by names of their own.
    """
    headers: dict[str, str] = {}
    requests, tokens_in, tokens_out = pool.requests, pool.input, pool.output
    if requests is not None:
        remaining = max(0, math.floor(requests.level + 1e-6))
        _describe(headers, "requests", requests.rate, remaining, requests, wall)
    if tokens_in is not None:
        _describe(headers, "input-tokens", tokens_in.rate, _rounded(tokens_in.level), tokens_in, wall)
    if tokens_out is not None:
        _describe(headers, "output-tokens", tokens_out.rate, _rounded(tokens_out.level), tokens_out, wall)
    if fast:
        return {_fast_name(name): value for name, value in headers.items()}
    if tokens_in is not None and tokens_out is not None:
        level = max(0.0, tokens_in.level) + max(0.0, tokens_out.level)
        later = max(tokens_in, tokens_out, key=Bucket.seconds_to_full)
        _describe(headers, "tokens", tokens_in.rate + tokens_out.rate, _rounded(level), later, wall)
    return headers


def _fast_name(name: str) -> str:
    return name.replace("ratelimit", "fast") if "tokens" in name else name


def _describe(  # noqa: PLR0917  three strings a line, called four times above
    headers: dict[str, str], name: str, rate: float, remaining: int, bucket: Bucket, wall: float
) -> None:
    prefix = f"anthropic-ratelimit-{name}-"
    headers[prefix + "limit"] = str(round(rate * 60))
    headers[prefix + "remaining"] = str(remaining)
    headers[prefix + "reset"] = _rfc3339(math.ceil(wall + bucket.seconds_to_full()))


def _rounded(level: float) -> int:
    return max(0, math.floor(level / _ROUNDED_TO + 0.5) * _ROUNDED_TO)


@lru_cache(maxsize=4096)
def _rfc3339(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
