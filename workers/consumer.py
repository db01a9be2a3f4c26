"""Celery's consumer, with two things changed: it is not stopped by a malformed message, and it does not gossip.

Stock Celery refuses an unknown task or a foreign content type by itself. Other damage (a list entry that is
no JSON, a header that is missing) raises through the event loop and ends the worker, or sends the message
round for ever. Nothing that lies in the queue may do that.
"""

from collections.abc import Callable, Mapping
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)


class Consumer(CeleryConsumer):
    """The `worker_consumer` of Promptmill."""

    connection_errors: tuple[type[Exception], ...]

    def __init__(self, *args: Any, worker_options: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        # Gossip and mingle tell workers of each other; ours meet in the database. Celery has no setting for them.
        kwargs["worker_options"] = {**(worker_options or {}), "without_gossip": True, "without_mingle": True}
        super().__init__(*args, **kwargs)
        # Raised by the transport itself for an entry it cannot read: reconnect, as after any broken reply.
        self.connection_errors = (*self.connection_errors, *_MALFORMED)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Celery's handler of messages, which here refuses what it cannot read."""
        handle = super().create_task_handler(*args, **kwargs)

        def handle_or_refuse(message: Any) -> Any:
            try:
                return handle(message)
            except _MALFORMED as error:
                if message.acknowledged:
                    raise
                return self.on_invalid_task(None, message, error)

        return handle_or_refuse
