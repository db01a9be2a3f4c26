"""Sort customer messages into labels, read back as objects: a schema, a template, and results as you go.

    python examples/labels.py

Without a key the simulated Claude answers, whose labels mean nothing but have the right form.
"""

from collections import Counter

from pydantic import BaseModel

from producers import run

MESSAGES = [
    "My parcel has not come yet.",
    "The lamp works well, thank you!",
    "How do I return a pair of shoes?",
    "我的订单少了一件。",
]


class Label(BaseModel):
    """What the answer to each message must look like."""

    topic: str
    urgent: bool


def main() -> None:
    """Label every message and count what is urgent."""
    batch = run(
        [{"custom_id": f"message-{n}", "text": text} for n, text in enumerate(MESSAGES)],
        template="Label this message of a customer: {{ text }}",
        schema=Label,
        model="claude-haiku-5-5",
        name="labels",
    )
    urgent = Counter()
    for result in batch.results(only="succeeded"):
        label = Label.model_validate(result.parsed)
        urgent[label.urgent] += 1
        print(f"{result.custom_id}: {label.topic!r}, urgent: {label.urgent}")
    print(f"{urgent[True]} of {urgent.total()} are urgent; cost ${batch.status().batch.cost_nanos / 1e9:.9f}")


if __name__ == "__main__":
    main()
