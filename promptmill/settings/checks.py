"""What must hold between settings that are each in order by themselves.

The idea to keep in mind: each fault names the variable to change. A wrong pair is told at the start of a process,
not by what would go wrong hours later.
"""

from urllib.parse import urlsplit

from promptmill.errors import ConfigurationError
from promptmill.settings.values import Settings

BROKERS = frozenset({
    "amqp", "amqps", "azureservicebus", "azurestoragequeues", "confluentkafka", "consul", "etcd",
    "filesystem", "gcpubsub", "kafka", "librabbitmq", "memory", "mongodb", "pgmq",
    "pyamqp", "pyro", "qpid", "redis", "rediss", "sentinel", "SLMQ",
    "slmq", "sqla", "sqlalchemy", "SQS", "sqs", "zookeeper",
})  # fmt: skip
"""What an address of a broker may begin with: kombu's transports, which a test compares."""
REDIS = frozenset({"redis", "rediss", "unix"})
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", ""})


def checked(settings: Settings) -> Settings:
    """The same settings, when they go together.

    Raises:
        ConfigurationError: one line that names the variable and what is wrong.
    """
    if settings.broker_url and (fault := _fault_of_broker(settings.broker_url)):
        raise ConfigurationError(f"PROMPTMILL_BROKER_URL: {fault}", setting="PROMPTMILL_BROKER_URL")
    if settings.redis_url and (fault := _fault_of_redis(settings.redis_url)):
        raise ConfigurationError(f"PROMPTMILL_REDIS_URL: {fault}", setting="PROMPTMILL_REDIS_URL")
    if settings.redis_url and settings.effective_database_url.startswith("sqlite"):
        host = urlsplit(settings.redis_url).hostname or ""
        if host not in LOOPBACK:
            raise ConfigurationError(
                "PROMPTMILL_DATABASE_URL: workers on several machines need a Postgres server, "
                f"because Redis is on another machine ({host}) and the database is SQLite",
                setting="PROMPTMILL_DATABASE_URL",
            )
    if settings.worker.dead_after_s <= 2 * settings.worker.heartbeat_s:
        raise ConfigurationError(
            "PROMPTMILL_WORKER__DEAD_AFTER_S: must be more than twice PROMPTMILL_WORKER__HEARTBEAT_S",
            setting="PROMPTMILL_WORKER__DEAD_AFTER_S",
        )
    return settings


def _fault_of_redis(url: str) -> str | None:
    """It is not repeated: wherever it is wrong, a password may be."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # where it is no number, reading it says so
    except ValueError:
        return "no address of a Redis, such as redis://127.0.0.1:6379/0"
    return None if parts.scheme in REDIS else "an address of a Redis begins with redis:// or rediss://"


def _fault_of_broker(url: str) -> str | None:
    """Without a scheme the whole of it may be a password, so it is not repeated."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        return "no address of a broker; it begins with redis:// or amqp://, say"
    if scheme.partition("+")[0] in BROKERS:
        return None
    return f"Celery knows no broker of the kind {scheme}; redis, rediss, amqp and amqps are usual"
