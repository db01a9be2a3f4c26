"""What to do about a failure: one sentence for each kind that is kept with a job or an attempt.

The one idea: whoever reads that something failed also reads what would help, and whether anything is to be done at all.
"""

from http import HTTPStatus

_RETRY = "try them again with: promptmill retry BATCH --only KIND"

_ADVICE = {
    "prompt_rejected": "the API refuses this request as it is: change the prompt or its parameters as the message says, and submit it anew",
    "key_rejected": f"the key was refused: set a valid one (promptmill doctor shows which is used), then {_RETRY}",
    "spend_cap_reached": "a spend limit of the account is reached: raise it in the Claude Console, then: promptmill resume BATCH",
    "rate_limited": f"the account's rate limit stood in the way all the time: give the batch more time, or see promptmill limits; {_RETRY}",
    "overloaded": f"the API was overloaded, which passes: {_RETRY}",
    "server_failed": f"the API failed on its own side: {_RETRY}; if it goes on, send the request id to Anthropic's support",
    "connection_failed": f"answers broke off on the way: look at the network, a proxy or its timeouts, then {_RETRY}",
    "unreachable": f"no connection to the API came about: look at the network and at ANTHROPIC_BASE_URL, then {_RETRY}",
    "request_too_large": "one call needs more tokens than the limit of a minute ever grants: shorten the prompt, lower --max-tokens, or raise the limit",
    "reply_not_stored": f"the answer came and the database did not take it: look for reply_not_stored in the worker's log, then {_RETRY} (it is paid again)",
    "text_damaged": "its text in the database is damaged, its own key does not open it: restore a backup, or submit the prompt anew",
    "lost": f"the worker process ended during the call, so often that this prompt may be the cause: look at memory and the worker's log, then {_RETRY}",
    "orphaned": "the worker lost sight of the call and found that out itself: nothing to do, the job is asked again",
    "interrupted": "the call was cut because its worker was stopped: nothing to do, the job is asked again",
    "truncated": "the answer reached max_tokens and is asked again with more",
    "budget": "the budget has no room for it: raise it with: promptmill set BATCH --budget DOLLARS",
    "expired": "the deadline passed first: set a later one, then: promptmill retry BATCH --only expired",
    "canceled": "somebody canceled the batch; promptmill retry BATCH --only canceled takes it up again",
    "other": "they failed of more different things than are counted by themselves: look at them with: promptmill results BATCH --only errored",
    "refusal": "Claude declined to answer: the answer is kept as it is; rephrase the prompt if it should be answered",
    "max_tokens": "the answer was cut off at max_tokens and is kept as it is: submit with a higher --max-tokens, or with --ask-again-up-to",
    "cut_at_the_cap": "the answer was cut off at the most that --ask-again-up-to allows and is kept as it is: submit with a higher --ask-again-up-to",
}

_BY_CODE = {
    "ramp_limit_exceeded": f"the account's use rose too fast for the API, which passes: {_RETRY}",
    "organization_on_hold": "the organization is on hold: write to Anthropic's support, then: promptmill resume BATCH",
}

_BY_STATUS: dict[tuple[str, int | None], str] = {
    (
        "prompt_rejected",
        HTTPStatus.NOT_FOUND,
    ): "the model or the address is not known to the API: look at --model and ANTHROPIC_BASE_URL, and submit it anew",
    (
        "prompt_rejected",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ): "the request is larger than the API takes (32 MB): make the prompt smaller, and submit it anew",
    (
        "key_rejected",
        HTTPStatus.FORBIDDEN,
    ): f"the key may not use this model: use a key of a workspace that may, then {_RETRY}",
}

_UNKNOWN = "the message says what is known; try them again with: promptmill retry BATCH"

KINDS = frozenset(_ADVICE)
"""Every kind that has a sentence of its own."""
ERROR_KINDS = KINDS - {
    "budget",
    "canceled",
    "cut_at_the_cap",
    "expired",
    "interrupted",
    "max_tokens",
    "orphaned",
    "other",
    "refusal",
    "truncated",
}
"""Those of a job that errored; with them `promptmill retry BATCH --only KIND` names its jobs."""


def advice_for(kind: str, *, status: int | None = None, error_code: str | None = None) -> str:
    """What a person can do, in one sentence without a full stop.

    Args:
        kind: of a ClaudeError, the word an attempt was closed with, or a job's state.
        status: the HTTP status, where there was one.
        error_code: `error.details.error_code`, where there was one.
    """
    if error_code is not None and error_code in _BY_CODE:
        said = _BY_CODE[error_code]
    else:
        said = _BY_STATUS.get((kind, status)) or _ADVICE.get(kind, _UNKNOWN)
    return said.replace("KIND", kind)
