"""The names by which the environment, and `.env`, set each value.

The idea to keep in mind: others rely on these names (docs/settings.md holds each), so one may be added, none changed.
"""

# The names are a contract (docs/settings.md). First name found wins; dotted paths are `group.field`.
VARIABLES: dict[str, tuple[str, ...]] = {
    "home": ("PROMPTMILL_HOME",),
    "redis_url": ("PROMPTMILL_REDIS_URL", "REDIS_URL"),
    "redis_url_file": ("PROMPTMILL_REDIS_URL_FILE",),
    "redis_password_file": ("PROMPTMILL_REDIS_PASSWORD_FILE",),
    "broker_url": ("PROMPTMILL_BROKER_URL",),
    "broker_url_file": ("PROMPTMILL_BROKER_URL_FILE",),
    "broker_password_file": ("PROMPTMILL_BROKER_PASSWORD_FILE",),
    "database_url": ("PROMPTMILL_DATABASE_URL", "DATABASE_URL"),
    "database_url_file": ("PROMPTMILL_DATABASE_URL_FILE",),
    "database_password_file": ("PROMPTMILL_DATABASE_PASSWORD_FILE",),
    "encryption_keys_file": ("PROMPTMILL_ENCRYPTION_KEYS_FILE",),
    "log_level": ("PROMPTMILL_LOG_LEVEL",),
    "log_format": ("PROMPTMILL_LOG_FORMAT",),
    "tracing": ("PROMPTMILL_TRACING",),
    "claude.api_key": ("ANTHROPIC_API_KEY", "CLAUDE_KEY"),
    "claude.api_key_file": ("ANTHROPIC_API_KEY_FILE",),
    "claude.keys_file": ("PROMPTMILL_KEYS_FILE",),
    "claude.admin_key": ("ANTHROPIC_ADMIN_KEY",),
    "claude.admin_key_file": ("ANTHROPIC_ADMIN_KEY_FILE",),
    "claude.base_url": ("ANTHROPIC_BASE_URL",),
    "claude.api_version": ("PROMPTMILL_API_VERSION",),
    "claude.connect_timeout_s": ("PROMPTMILL_CLAUDE__CONNECT_TIMEOUT_S",),
    "claude.idle_timeout_s": ("PROMPTMILL_CLAUDE__IDLE_TIMEOUT_S",),
    "claude.stream_idle_timeout_s": ("PROMPTMILL_CLAUDE__STREAM_IDLE_TIMEOUT_S",),
    "claude.total_timeout_s": ("PROMPTMILL_CLAUDE__TOTAL_TIMEOUT_S",),
    "limits.rpm": ("PROMPTMILL_RPM",),
    "limits.itpm": ("PROMPTMILL_ITPM",),
    "limits.otpm": ("PROMPTMILL_OTPM",),
    "limits.rate_limit": ("RATE_LIMIT",),
    "worker.concurrency": ("PROMPTMILL_CONCURRENCY",),
    "worker.patience_s": ("PROMPTMILL_WORKER__PATIENCE_S",),
    "worker.heartbeat_s": ("PROMPTMILL_WORKER__HEARTBEAT_S",),
    "worker.dead_after_s": ("PROMPTMILL_WORKER__DEAD_AFTER_S",),
    "worker.commit_rows": ("PROMPTMILL_WORKER__COMMIT_ROWS",),
    "worker.commit_delay_s": ("PROMPTMILL_WORKER__COMMIT_DELAY_S",),
    "worker.max_attempts": ("PROMPTMILL_WORKER__MAX_ATTEMPTS",),
    "worker.outage_s": ("PROMPTMILL_WORKER__OUTAGE_S",),
    "worker.max_losses": ("PROMPTMILL_WORKER__MAX_LOSSES",),
    "worker.deaf_after_s": ("PROMPTMILL_WORKER__DEAF_AFTER_S",),
    "worker.hung_after_s": ("PROMPTMILL_WORKER__HUNG_AFTER_S",),
    "worker.reconcile_s": ("PROMPTMILL_WORKER__RECONCILE_S",),
    "worker.transport": ("PROMPTMILL_WORKER__TRANSPORT",),
    "worker.pulse_file": ("PROMPTMILL_WORKER__PULSE_FILE",),
    "retention.prompts_days": ("PROMPTMILL_RETENTION__PROMPTS_DAYS",),
    "retention.answers_days": ("PROMPTMILL_RETENTION__ANSWERS_DAYS",),
    "retention.everything_days": ("PROMPTMILL_RETENTION__EVERYTHING_DAYS",),
    "webhook.secret": ("PROMPTMILL_WEBHOOK_SECRET",),
    "webhook.secret_file": ("PROMPTMILL_WEBHOOK_SECRET_FILE",),
    "webhook.allow": ("PROMPTMILL_WEBHOOK_ALLOW",),
    "dashboard.token": ("PROMPTMILL_DASHBOARD_TOKEN",),
    "dashboard.token_file": ("PROMPTMILL_DASHBOARD_TOKEN_FILE",),
}


ADMIN_KEY_PATHS = ("claude.admin_key", "claude.admin_key_file")
"""An admin key calls no model, and could change much else: only who asks for it is given it."""
WEBHOOK_SECRET_PATHS = ("webhook.secret", "webhook.secret_file")
"""Whoever has the secret can sign notices: only workers, which send them, are given it."""
DASHBOARD_TOKEN_PATHS = ("dashboard.token", "dashboard.token_file")
"""Who has the token may cancel a batch: only the page is given it."""
