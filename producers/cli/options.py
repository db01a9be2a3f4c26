"""Options that several commands share, each defined once."""

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]

BatchName = Annotated[str, typer.Argument(metavar="BATCH", help="Name or id of the batch.")]

BatchNameOrNewest = Annotated[
    str | None, typer.Argument(metavar="BATCH", help="Name or id of the batch; the newest when left out.")
]

Source = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="The prompts: .jsonl, .csv, .tsv (each also .gz), .parquet, or - for JSON lines from standard input.",
    ),
]

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="M", help="The model, for rows that name none of their own."),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="N", help="What to call the batch; by default the file's name and a hash."
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", metavar="K", min=1, help="The longest answer, in tokens; 4096 by default."),
]
AskAgainUpTo = Annotated[
    int | None,
    typer.Option(
        "--ask-again-up-to",
        metavar="N",
        min=1,
        help="Ask again for an answer that --max-tokens cut off, with twice the room, up to N tokens; "
        "kept as it is by default.",
    ),
]
System = Annotated[
    str | None,
    typer.Option("--system", metavar="TEXT|@FILE", help="A system prompt for every prompt, or @ and a file."),
]
Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        metavar="TEXT|@FILE",
        help="A Jinja2 template that makes a prompt from the fields of a row, or @ and a file.",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option("--columns", metavar="A,B", help="The fields of a CSV or TSV file without a header row."),
]
Schema = Annotated[
    str | None,
    typer.Option(
        "--schema",
        metavar="PKG:MODEL|FILE.json",
        help="What an answer must look like: a pydantic model, or a file with a JSON schema.",
    ),
]
Lane = Annotated[
    str, typer.Option("--lane", metavar="auto|realtime", help="How prompts travel; auto is realtime for now.")
]
Deadline = Annotated[
    str | None,
    typer.Option("--deadline", metavar="24h", help="Begin nothing after this: 90m, 24h, 3d, or a moment."),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget", metavar="DOLLARS", help="Pause the batch before it costs more than this: 50, or 0.25."
    ),
]
Priority = Annotated[
    str,
    typer.Option(
        "--priority", metavar="P", help="high, normal, low, or a weight: 10 gets ten times the share of 1."
    ),
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="K=V", help="A note on the batch; may be repeated.")
]
Notify = Annotated[
    str | None,
    typer.Option(
        "--notify",
        metavar="URL",
        help="Tell this https:// address when the batch has ended, or is paused by itself.",
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Take only the first N prompts.")
]
SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Leave out rows with faults instead of submitting nothing.")
]
New = Annotated[bool, typer.Option("--new", help="Make a new batch even if this file was submitted before.")]
Workers = Annotated[
    int, typer.Option("--workers", metavar="N", min=1, max=64, help="Worker processes to start.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="OUT", help="Where the results go; - is standard output."),
]
