"""The same work by bespokelabs-curator 0.1.31 in an environment of its own.

    python curator_batch.py URL BODIES.jsonl RPM

It is told the limit of requests; those of tokens it reads from the headers of a call of its own, because its
LiteLLM backend takes no limits for input and output apart. Its Anthropic backend asks for a model that is
retired, and loads a tokenizer from the network, so it is not used here.
"""

import json
import sys
from pathlib import Path

from bespokelabs import curator

MAX_TOKENS = 4_096


class Ask(curator.LLM):
    """One prompt a row."""

    def prompt(self, row: dict[str, str]) -> str:
        """What is asked."""
        return row["prompt"]

    def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
        """What is kept."""
        return {"prompt": row["prompt"], "answer": response}


def main(url: str, source: str, rpm: int) -> None:
    bodies = [json.loads(line) for line in Path(source).read_text().splitlines()]
    ask = Ask(
        model_name=f"anthropic/{bodies[0]['model']}",
        backend="litellm",
        generation_params={"max_tokens": MAX_TOKENS},
        backend_params={
            "base_url": url,
            "max_requests_per_minute": rpm,
            "require_all_responses": False,
        },
    )
    ask([{"prompt": body["messages"][0]["content"]} for body in bodies])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
