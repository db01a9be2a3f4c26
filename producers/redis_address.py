"""Where Redis is, and whether it answers there."""

from producers.environment import with_values
from promptmill.embedded import running_redis
from promptmill.errors import ConfigurationError
from promptmill.logs import scrub
from promptmill.settings import Settings

_PATIENCE_S = 5.0


def with_running_redis(settings: Settings) -> Settings:
    """The settings, with the address of this folder's embedded Redis where none is set and it runs just now."""
    if settings.redis_url is not None:
        return settings
    url = running_redis(settings.home)
    return settings if url is None else with_values(settings, "embedded", redis_url=url)


def check_redis(url: str) -> None:
    """See that a Redis answers before anything is started that would wait for it.

    Raises:
        ConfigurationError: nothing answers within seconds, or it refuses us; names the setting.
    """
    from redis import Redis  # noqa: PLC0415  # 0.25 s that most commands do not need
    from redis.exceptions import RedisError  # noqa: PLC0415  # likewise

    try:
        with Redis.from_url(url, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S) as client:
            client.ping()
    except (RedisError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"PROMPTMILL_REDIS_URL: no Redis answers at {scrub(url)} ({scrub(str(error))})",
            setting="PROMPTMILL_REDIS_URL",
        ) from error
