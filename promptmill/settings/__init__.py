"""Settings: one frozen value of small groups, read once at the edge of a process.

Strength, strongest first: arguments, environment, `.env`, `promptmill.toml`, defaults. Nothing below
`runtime` reads settings by itself; rooms are given plain values. `Settings.origins` says where each
value came from, for `promptmill doctor`.
"""

from promptmill.settings.checks import BROKERS, LOOPBACK
from promptmill.settings.sources import load
from promptmill.settings.values import (
    API_VERSION,
    REAL_API,
    AccountLimits,
    ClaudeSettings,
    DashboardSettings,
    GroupLimits,
    LimitSettings,
    RetentionSettings,
    Settings,
    WebhookSettings,
    WorkerSettings,
)
from promptmill.settings.variables import (
    ADMIN_KEY_PATHS,
    DASHBOARD_TOKEN_PATHS,
    VARIABLES,
    WEBHOOK_SECRET_PATHS,
)

__all__ = [
    "ADMIN_KEY_PATHS",
    "API_VERSION",
    "BROKERS",
    "DASHBOARD_TOKEN_PATHS",
    "LOOPBACK",
    "REAL_API",
    "VARIABLES",
    "WEBHOOK_SECRET_PATHS",
    "AccountLimits",
    "ClaudeSettings",
    "DashboardSettings",
    "GroupLimits",
    "LimitSettings",
    "RetentionSettings",
    "Settings",
    "WebhookSettings",
    "WorkerSettings",
    "load",
]
