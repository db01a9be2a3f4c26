"""Names that travel between processes: tasks, queues and Redis keys. The two edge packages meet here."""

APP_NAME = "promptmill"
ANSWER_TASK = "promptmill.answer"
RUN_DUE_TASK = "promptmill.run_due"
ANSWER_QUEUE = "promptmill"

KEY_PREFIX = "promptmill:"
BEAT_LOCK = KEY_PREFIX + "beat::lock"  # whichever beat holds it starts the recurring batches
DISPATCHER_LOCK = KEY_PREFIX + "dispatcher:lock:"  # + the endpoint it dispatches for
DISPATCHER_VIRTUAL_TIMES = KEY_PREFIX + "dispatcher:virtual-times:"  # likewise
IN_HAND = KEY_PREFIX + "in-hand:"  # + a worker's id: what it has taken, for the reaper
NUDGE_CHANNEL = KEY_PREFIX + "nudge"
PUT_RIGHT = KEY_PREFIX + "put-right"  # a hash: what was found wrong and put right, and how often
VITALS = KEY_PREFIX + "vitals:"  # + a worker's id: how late its event loop is, and its memory, for metrics
COUNTERS = KEY_PREFIX + "counters"  # a hash: what counters of metrics were last, so that they never go back
MESSAGES_REFUSED = (
    KEY_PREFIX + "messages-refused"
)  # a hash: messages that were none of ours, by reason, and how often
KEY_STATES = KEY_PREFIX + "keys"  # a hash: how the keys of each worker stand, by label, and when it said so
KEYS_USED = KEY_PREFIX + "keys-used"  # a hash: when each key was last called with


def key_field(account: str, label: str) -> str:
    """What a key is called among those of `KEYS_USED`."""
    return f"{account}\t{label}"
