"""Where Redis is for a command that starts none."""

from producers.environment import with_values
from promptmill.embedded import running_redis
from promptmill.settings import Settings


def with_running_redis(settings: Settings) -> Settings:
    """The settings, with the address of this folder's embedded Redis where none is set and it runs just now."""
    if settings.redis_url is not None:
        return settings
    url = running_redis(settings.home)
    return settings if url is None else with_values(settings, "embedded", redis_url=url)
