"""The HTTP library for the few questions that are asked without an event loop."""

import httpx

from promptmill.claude.surroundings import proxy_of, tls_context

__all__ = ["BROKEN", "open_sync_client"]

#: What a broken exchange raises.
BROKEN = (httpx.HTTPError, OSError)


def open_sync_client(base_url: str, *, timeout: float) -> httpx.Client:
    """A short-lived client; `timeout` in seconds, per step."""
    return httpx.Client(verify=tls_context(), proxy=proxy_of(base_url), timeout=timeout, trust_env=False)
