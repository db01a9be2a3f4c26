"""Celery's settings, each with its reason. What depends on the surroundings comes from Promptmill's settings.

The idea to keep in mind: a message is only a wake-up. The database brings a job back, never the broker.
"""

# Imported under private names, because Celery takes every public name here for a setting.
from promptmill import routes as _routes
from promptmill import settings as _sources
from promptmill.broker import is_redis as _is_redis

_settings = _sources.load()
_call_s = _settings.claude.total_timeout_s

# Where
# None = embedded: whoever starts the worker passes the address on
broker_url = _settings.broker_url or _settings.redis_url
_broker_is_redis = broker_url is None or _is_redis(broker_url)
broker_connection_retry_on_startup = True  # a worker that starts before its Redis waits for it
broker_channel_error_retry = (
    True  # a Redis that refuses (demoted, full, loading) is waited for, too: it would end the worker
)
broker_transport_options = {
    "socket_connect_timeout": 5,  # seconds, else a host that is gone hangs the worker for minutes
    "socket_timeout": 30,  # seconds, above the 1 s for which a read blocks in Redis
    "socket_keepalive": True,
    "health_check_interval": 25,
    # A message taken is not kept a second time in Redis until it is acknowledged, as Celery would: that costs
    # two round trips a job, and brings back nothing that the database does not bring back sooner. So there is
    # no visibility timeout either, and no second delivery of a call that takes long.
    "ack_emulation": False,
    # No retry_on_timeout: it switches batched publishing off.
}
if not _broker_is_redis:  # those above would mean nothing to RabbitMQ, say, or something else
    broker_transport_options = {}
task_default_queue = _routes.ANSWER_QUEUE
imports = ("workers.tasks", "workers.pulse", "workers.celery_lines")

# What travels: ids as JSON. Nothing is unpickled, no result is stored: it is in the database.
accept_content = ["json"]
task_serializer = "json"
result_serializer = "json"
event_serializer = "json"
task_ignore_result = True
task_store_errors_even_if_ignored = False
result_expires = None  # else beat sends a clean-up of results every night, which no worker takes
timezone = "UTC"
enable_utc = True

# How a worker takes messages
worker_pool = "workers.pool:TaskPool"
worker_consumer = {  # many ids in a round trip, or one at a time as kombu comes
    "batched": "workers.consumer:BatchedConsumer",
    "stock": "workers.consumer:Consumer",
}[_settings.worker.transport]
worker_concurrency = _settings.worker.concurrency
worker_disable_prefetch = _broker_is_redis  # takes only what it can begin; Redis only
worker_prefetch_multiplier = 1  # the same, as near as other brokers come to it
worker_enable_prefetch_count_reduction = False  # after a lost connection too, running jobs are counted anyway
task_acks_late = False  # acknowledged when its job starts: no second delivery of a long call
worker_cancel_long_running_tasks_on_connection_loss = False  # a call in flight is paid for
worker_disable_rate_limits = True  # the limiter is ours, in tokens; Celery's would hold messages back
task_soft_time_limit = _call_s + 60  # seconds; a backstop above the client's own timeouts
task_time_limit = _call_s + 90

# What others see
worker_send_task_events = True  # Flower
task_send_sent_event = False  # doubles the cost of publishing and names every producer process
worker_hijack_root_logger = False  # one log pipeline, see promptmill.logs
worker_redirect_stdouts = False

# Recurring batches: RedBeat, filled from the table of schedules; one of several beats holds the lock in Redis
beat_scheduler = "workers.beat:Scheduler"
beat_max_loop_interval = 2  # seconds; with the 3 s between two looks at the table, a change is seen within 5
redbeat_redis_url = _settings.redis_url
# No retry_period: after it beat would end; the scheduler waits for Redis as long as it takes.
redbeat_redis_options = {"socket_connect_timeout": 5, "socket_timeout": 10, "socket_keepalive": True}
redbeat_key_prefix = _routes.KEY_PREFIX + "beat:"
redbeat_lock_timeout = 30  # seconds; a killed beat is replaced after this; 3 loops at least
