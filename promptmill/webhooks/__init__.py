"""Webhooks: one signed POST to an address a person gave, sent so that it cannot be turned against inner hosts.

The one idea: the name is resolved once, every address it has is judged, and the connection is made to an address
that was judged. So a name that resolves otherwise a moment later gains nothing. There is no redirect, no proxy and
no retry in here, and nothing of the answer is read but its status. All of it ends at one deadline, a resolver that
is stuck included: whoever sends may count on that.
"""

from promptmill.webhooks.addresses import LONGEST_URL, check_url, host_of
from promptmill.webhooks.delivery import TIMEOUT_S, Delivery, Message, deliver
from promptmill.webhooks.signing import SHORTEST_SECRET, Secrets

__all__ = [
    "LONGEST_URL",
    "SHORTEST_SECRET",
    "TIMEOUT_S",
    "Delivery",
    "Message",
    "Secrets",
    "check_url",
    "deliver",
    "host_of",
]
