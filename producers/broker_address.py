"""Whether a broker other than our Redis answers where it is said to be."""

from promptmill.broker import reach
from promptmill.errors import ConfigurationError
from promptmill.logs import scrub

_PATIENCE_S = 5.0


def check_broker(url: str) -> None:
    """See that a broker answers before anything is started: workers would wait for it without a word.

    Raises:
        ConfigurationError: nothing answers within seconds, or it refuses us; names the setting.
    """
    try:
        reach(url, patience_s=_PATIENCE_S)
    except Exception as error:
        # Every broker has a library of its own, with failures of its own.
        raise ConfigurationError(
            f"PROMPTMILL_BROKER_URL: nothing answers at {scrub(url)} ({scrub(str(error))})",
            setting="PROMPTMILL_BROKER_URL",
        ) from error
