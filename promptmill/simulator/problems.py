"""Every refusal of this server: status, type, message and headers, in the real API's body shape.

The one idea: a refusal is raised as an ApiProblem from wherever it is noticed and written out in one place
(claude-api.md, 5.3, 5.6 and 6).
"""

from collections.abc import Mapping
from typing import Any

from promptmill.dimensions import Dimension

MOST_BODY_BYTES = 32 * 1024 * 1024

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_NOUNS = {
    Dimension.REQUESTS: "requests",
    Dimension.INPUT_TOKENS: "input tokens",
    Dimension.OUTPUT_TOKENS: "output tokens",
}
_NEXT_MONTH = "You will regain access on the first day of next month at 00:00 UTC."


class ApiProblem(Exception):
    """A response that is no success.

    Attributes:
        status: of the response.
        kind: `error.type`.
        message: `error.message`.
        error_code: `error.details.error_code`; None leaves `details` out.
        headers: further response headers.
        reason: the word the ledger counts it under.
        page: HTML that is sent instead of the error object; None for none.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str | None = None,
        error_code: str | None = None,
        headers: Mapping[str, str] | None = None,
        reason: str | None = None,
        page: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind or _TYPES.get(status, "api_error")
        self.message = message
        self.error_code = error_code
        self.headers = dict(headers or {})
        self.reason = reason or self.kind
        self.page = page

    def body(self, request_id: str) -> dict[str, Any]:
        """The error object of the response."""
        error: dict[str, Any] = {"type": self.kind, "message": self.message}
        if self.error_code is not None:
            error["details"] = {"error_code": self.error_code}
        return {"type": "error", "error": error, "request_id": request_id}


def invalid(message: str) -> ApiProblem:
    """400: the request is at fault."""
    return ApiProblem(400, message)


def unknown_model(name: str) -> ApiProblem:
    """404: no such model, or one that is retired."""
    return ApiProblem(404, f"model: {name}", reason="unknown_model")


def too_large() -> ApiProblem:
    """413: the body is over the limit."""
    return ApiProblem(413, "Request exceeds the maximum allowed number of bytes.")


def wrong_key() -> ApiProblem:
    """401: there is a key, and it is not valid."""
    return ApiProblem(401, "invalid x-api-key")


def missing_key() -> ApiProblem:
    """401: there is no key."""
    return ApiProblem(401, "x-api-key header is required")


def forbidden(model: str) -> ApiProblem:
    """403: the key may not use the model."""
    return ApiProblem(403, f"Your API key does not have permission to use the specified model: {model}")


def rate_limited(
    dimension: Dimension | None,
    *,
    limit: float,
    organization_id: str,
    model: str,
    headers: Mapping[str, str],
    reason: str | None = None,
) -> ApiProblem:
    """429 of a bucket, naming the limit; of the acceleration rule where `dimension` is None."""
    if dimension is None:
        return ApiProblem(
            429,
            "This request would exceed the rate at which your organization's usage may increase. "
            "Please ramp up gradually.",
            error_code="ramp_limit_exceeded",
            headers=headers,
            reason=reason or "ramp",
        )
    message = (
        f"This request would exceed your organization's rate limit of {limit:,.0f} {_NOUNS[dimension]} per minute "
        f"(org: {organization_id}, model: {model}). For details, refer to the rate limits page of the API's "
        "documentation. You can see the response headers for current usage."
    )
    return ApiProblem(429, message, headers=headers, reason=reason or dimension.value)


def spend_cap(form: str) -> ApiProblem:
    """A spend limit in one of its five forms (claude-api.md, 5.3); none has a retry-after."""
    reason = "spend_cap"
    if form in {"enforced", "contract"}:
        text = f"Your organization has reached its {form} monthly spend limit. {_NEXT_MONTH}"
        return ApiProblem(429, text, error_code=f"{form}_spend_limit_reached", reason=reason)
    if form == "billing":
        text = "Your organization's payment method has a problem. Please check the billing settings."
        return ApiProblem(402, text, reason=reason)
    workspace = "workspace " if form == "workspace" else ""
    text = f"You have reached your specified {workspace}API usage limits. {_NEXT_MONTH}"
    return ApiProblem(400, text, reason=reason)


def proxy_page(status: int) -> str:
    """The HTML that a proxy in front of the API sends instead of JSON."""
    return (
        f"<html>\r\n<head><title>{status} Bad gateway</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} Bad gateway</h1></center>\r\n<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
    )
