"""SimulatorConfig: everything that can be set about one simulator, as plain values.

The one idea: it is JSON-able, because a simulator often runs as a child process and gets it through a pipe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from promptmill.errors import ConfigurationError

PUBLISHED = None
"""As a limit: what the published Start tier gives the model group (claude-api.md, 5.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorConfig:
    """How one simulator behaves.

    Attributes:
        host: where it listens.
        port: 0 takes a free one.
        rpm: requests per minute of one organization and model group; None = the published Start tier, 0 = no limit.
        itpm: the same for input tokens.
        otpm: the same for output tokens.
        count_tokens_rpm: requests per minute to count_tokens, per organization; 0 = no limit.
        burst_s: what a bucket holds, in seconds of its limit.
        request_burst_s: `burst_s` of the request bucket alone; None = `burst_s`.
        input_burst_s: `burst_s` of the input-token bucket alone.
        output_burst_s: `burst_s` of the output-token bucket alone.
        hidden_request_burst_s: capacity of a second request bucket that no header shows; None = there is none.
        acceleration: refuse a sharp rise: per 10 s at most twice the previous 10 s, from 40 % of the limit.
        first_token_s: mean seconds until the first token.
        tokens_per_s: mean speed of an answer; 0 = all tokens at once.
        jitter: spread (sigma of a lognormal) of both; 0 = always the mean.
        mean_output_tokens: mean length of an answer's text.
        output_spread: sigma of the lognormal of that length.
        token_factor: input tokens are counted so many times what the own formula says: a client's estimate is
            1 / `token_factor` of what is charged, as with a tokenizer or a language it does not know.
        text: `prose`, or `echo` for the last user text given back word for word.
        seed: the same seed and body give the same answer, speed and faults.
        scenario: path of a scenario file (see `scenario`).
        faults: further faults, each like one `[[fault]]` of a scenario file.
        organizations: name → its keys. A key that is named nowhere is an organization of its own.
        only_known_keys: answer 401 to keys that `organizations` does not name.
        models: models beyond the published ones: name → fields of `catalogue.ModelFacts`.
    """

    host: str = "127.0.0.1"
    port: int = 8787
    rpm: float | None = PUBLISHED
    itpm: float | None = PUBLISHED
    otpm: float | None = PUBLISHED
    count_tokens_rpm: float = 2000
    burst_s: float = 60.0
    request_burst_s: float | None = None
    input_burst_s: float | None = None
    output_burst_s: float | None = None
    hidden_request_burst_s: float | None = None
    acceleration: bool = False
    first_token_s: float = 0.6
    tokens_per_s: float = 80.0
    jitter: float = 0.3
    mean_output_tokens: float = 220.0
    output_spread: float = 0.6
    token_factor: float = 1.0
    text: str = "prose"
    seed: int = 0
    scenario: str | None = None
    faults: Sequence[Mapping[str, Any]] = ()
    organizations: Mapping[str, Sequence[str]] = field(default_factory=dict)
    only_known_keys: bool = False
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ZERO:
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigurationError(
                    f"{name} must be a number of at least 0, not {value!r}", setting=name
                )
        if self.text not in {"prose", "echo"}:
            raise ConfigurationError(f"text must be prose or echo, not {self.text!r}", setting="text")
        if self.mean_output_tokens < 1:
            raise ConfigurationError("mean_output_tokens must be at least 1", setting="mean_output_tokens")
        if self.token_factor <= 0:
            raise ConfigurationError("token_factor must be above 0", setting="token_factor")

    @classmethod
    def unlimited(cls, **values: Any) -> Self:
        """No limit in any dimension and no latency, except where `values` say otherwise."""
        return cls(**{**_NO_LIMITS, **_NO_LATENCY, **values})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ConfigurationError: a field is not known or has no usable value.
        """
        if strange := sorted(set(values) - {each.name for each in fields(cls)}):
            raise ConfigurationError(f"the simulator has no setting {strange[0]!r}", setting=strange[0])
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Plain values, fit for json.dumps."""
        return asdict(self)


_NO_LIMITS = {"rpm": 0, "itpm": 0, "otpm": 0, "count_tokens_rpm": 0}
_NO_LATENCY = {"first_token_s": 0.0, "tokens_per_s": 0.0}
_AT_LEAST_ZERO = (
    "rpm",
    "itpm",
    "otpm",
    "count_tokens_rpm",
    "burst_s",
    "request_burst_s",
    "input_burst_s",
    "output_burst_s",
    "hidden_request_burst_s",
    "first_token_s",
    "tokens_per_s",
    "jitter",
    "mean_output_tokens",
    "output_spread",
    "token_factor",
)
