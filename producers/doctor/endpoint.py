"""Claude: is it there, is it the real one, and does the first key work. One free call."""

import asyncio

from producers.doctor.checks import Check, note, ok, wrong
from promptmill.errors import ClaudeError, KeyRejected, PromptmillError
from promptmill.logs import scrub
from promptmill.runtime import Surroundings
from promptmill.settings import Settings


def endpoint(settings: Settings) -> list[Check]:
    """Where calls go."""
    url = scrub(settings.claude.base_url)
    runtime = Surroundings(settings)
    try:
        found = runtime.endpoint
    except PromptmillError as error:
        return [wrong("endpoint", str(error), "correct ANTHROPIC_BASE_URL, or start what is there")]
    if found.simulated:
        return [note("endpoint", f"{url}, a simulated Claude", "unset ANTHROPIC_BASE_URL for the real one")]
    try:
        models = asyncio.run(_list_models(runtime))
    except KeyRejected as error:
        return [wrong("endpoint", f"{url} refuses the key: {error}", "correct ANTHROPIC_API_KEY")]
    except ClaudeError as error:
        advice = "check the network; ANTHROPIC_BASE_URL says where Claude is"
        return [wrong("endpoint", f"{url}: {error}", advice)]
    except PromptmillError:
        return [note("endpoint", f"{url}, not tried without a key")]
    return [ok("endpoint", f"{url}, {models} models")]


async def _list_models(runtime: Surroundings) -> int:
    """How many models the first key may use: a free call that shows whether address and key work."""
    client = runtime.client()
    try:
        return len(await client.list_models(runtime.keys().pick("any")))
    finally:
        await client.aclose()
