"""Ask a file of questions with known answers and see how many came back right.

    python examples/evaluate.py gsm8k-test.jsonl

Rows are like {"question": "…", "answer": "… #### 18"}: the number after #### is what counts. `submit` reads the
file lazily and the results come page by page, so the file may be large. Run it again and nothing is asked twice.
"""

import re
import sys

from producers import run

NUMBER = re.compile(r"-?[\d,]*\.?\d+")
TEMPLATE = "{{ question }}\n\nThink briefly, then give the number alone on the last line."


def last_number(text: str) -> str | None:
    """The last number in a text, without its commas."""
    found = NUMBER.findall(text)
    return found[-1].replace(",", "") if found else None


def main(path: str) -> None:
    """Ask, compare, report."""
    batch = run(path, template=TEMPLATE, model="claude-haiku-5-5", max_tokens=2000)
    right = answered = 0
    for result in batch.results(only="succeeded"):
        answered += 1
        right += last_number(result.text) == last_number(result.input["answer"])
    print(f"{right} of {answered} right")


if __name__ == "__main__":
    main(*sys.argv[1:])
