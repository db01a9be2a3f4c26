"""The survey: every row read, checked, measured and kept aside, before anything is submitted.

One pass over the source, whatever it is. What it finds out is a value; `admit` acts on it, an estimate or a
dry run only looks at it.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import islice
from typing import Any

from promptmill.catalogue import CATALOGUE, Catalogue, limit_group
from promptmill.errors import InvalidInput
from promptmill.estimates import Length, ceiling_of, measure, start_factor
from promptmill.experience import template_of
from promptmill.intake.checks import Checks, check_window
from promptmill.intake.faults import Faults
from promptmill.intake.fieldnames import REQUEST_FIELDS, refuse_slips
from promptmill.intake.forecast import Expected, ExperienceOf, Forecast, Shape, forecast, nothing_known
from promptmill.intake.jsonlines import Row
from promptmill.intake.lines import LineReader
from promptmill.intake.options import DEFAULT_MAX_TOKENS, SubmitOptions
from promptmill.intake.shared import Shared
from promptmill.intake.sources import label_of, rows_of, stem_of
from promptmill.intake.spool import Spool
from promptmill.pricing import PriceBook
from promptmill.prompts import fingerprint_of

Progress = Callable[[str, int, int | None], None]
"""Called now and then with what is being done, how many rows are done, and of how many, as far as that is known.

`reading`, then `storing`; before it `resuming`, while all that is met was stored by an earlier submit.
"""

_ROWS_BETWEEN_PROGRESS = 1_000
_HASH_SHOWN = 8
_LONGEST_NAME = 200
_RETIRES_SOON = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a source holds, and what it would cost.

    Attributes:
        name: the batch's name: as given, or the source's and a short hash of the content.
        content_hash: equal for equal prompts in equal order under equal names.
        shared: the fields of the request that all rows have.
        template: a name for what all rows have in common; None where that says nothing about their answers.
        forecast: what they will use and cost, as far as anybody knows.
        models: how many rows ask for each model, the most frequent first.
        skipped: the first faults of rows left out; empty unless invalid rows are skipped.
        skipped_count: how many rows were left out.
        notices: what a person should know, in sentences.
    """

    name: str
    content_hash: str
    shared: Mapping[str, Any]
    template: str | None
    forecast: Forecast
    models: Mapping[str, int]
    skipped: tuple[InvalidInput, ...] = ()
    skipped_count: int = 0
    notices: tuple[str, ...] = ()

    @property
    def jobs(self) -> int:
        """How many rows would be submitted."""
        return self.forecast.jobs

    @property
    def estimate(self) -> Expected:
        """The sums over all rows; its cost is None when the cost of one is unknown."""
        return self.forecast.expected


@dataclass(slots=True, kw_only=True)
class Surveyor:
    """Reads one source into a spool.

    Attributes:
        spool: where the checked rows go; it must be open until they were used.
        today: the day on which a model must not be retired.
        simulated: whether a simulated Claude will answer: a rehearsal is another batch than the real thing.
        experience_of: what earlier answers taught.
    """

    options: SubmitOptions
    spool: Spool
    today: date
    simulated: bool
    catalogue: Catalogue = CATALOGUE
    prices: PriceBook = field(default_factory=PriceBook)
    experience_of: ExperienceOf = nothing_known
    progress: Progress | None = None
    shared: Shared = field(init=False)
    _usual: dict[str, Any] = field(init=False)
    _reader: LineReader = field(init=False)
    _checks: Checks = field(init=False)
    _content: Any = field(init=False)
    _measured: tuple[dict[str, Any], Length] = field(default=({}, Length(0.0)), init=False)

    def __post_init__(self) -> None:
        options = self.options
        refuse_slips(options.params, REQUEST_FIELDS)
        self._usual = options.request_fields()
        self._reader = LineReader(options, self.catalogue)
        self._checks = Checks(
            self.catalogue, lane=options.lane, api_version=options.api_version, today=self.today
        )
        self._checks.check_fields(self._usual)
        self.shared = Shared(self._usual)
        self._content = hashlib.sha256(b"simulated" if self.simulated else b"real")

    def survey(self, source: object) -> Survey:
        """Read the whole source.

        Raises:
            InvalidInput: the options or the source are at fault as a whole, or there is no row.
            InvalidRows: rows are at fault, and are not to be skipped; or no row is without fault.
        """
        if self.options.name is not None:
            _check_name(self.options.name)
        faults = Faults(label_of(source))
        self._read(islice(rows_of(source, self.options.columns), self.options.limit), faults)
        alone = faults.count
        for line, first in self.spool.duplicates():
            faults.add(InvalidInput(f"the same as on line {first}", field="custom_id"), line)
        if not self.options.skip_invalid:
            faults.raise_if_any()
        if faults.count > alone:  # looking for them anew takes as long as finding them did
            self.spool.leave_out_duplicates()
        models = self.spool.models()
        if not models:
            faults.raise_if_any()
            raise InvalidInput("there is no row in it", file=label_of(source))
        return self._conclude(source, models, faults)

    def _read(self, rows: Iterator[Row], faults: Faults) -> None:
        count = line = 0
        try:
            for count, (line, row) in enumerate(rows, 1):
                try:
                    self._take(line, row)
                except InvalidInput as fault:
                    faults.add(fault, line)
                if self.progress and count % _ROWS_BETWEEN_PROGRESS == 0:
                    self.progress("reading", count, None)
        except InvalidInput as end:  # the source itself: nothing after this can be read
            if not faults.count:
                raise
            faults.add(end, end.line or line)
            faults.raise_if_any()
        if self.progress:
            self.progress("reading", count, count)

    def _take(self, line: int, row: Any) -> None:
        draft = self._reader.read(row)
        body = {**self._usual, **draft.own}
        facts = self._checks.check(body)
        model = str(body["model"])
        shape = Shape(
            model,
            limit_group(facts.group, body.get("speed")),
            math.ceil(self._measure(body).tokens * start_factor(model, self.catalogue)),
            ceiling_of(body) or DEFAULT_MAX_TOKENS,
            body.get("inference_geo"),
            body.get("speed"),
        )
        check_window(shape.input_tokens, facts)
        fingerprint = fingerprint_of(body)
        self._content.update(f"{draft.custom_id or ''} {fingerprint}\n".encode())
        self.spool.add(
            line=line,
            draft=draft,
            fingerprint=fingerprint,
            shape=shape,
            own=self.shared.split(body),
        )

    def _measure(self, body: Mapping[str, Any]) -> Length:
        # Row after row has the same system prompt and tools: measured when they change.
        rest = {name: body[name] for name in body if name != "messages"}
        if rest != self._measured[0]:
            self._measured = (rest, measure(rest))
        return self._measured[1] + measure({"messages": body["messages"]})

    def _conclude(self, source: object, models: Mapping[str, int], faults: Faults) -> Survey:
        content_hash = self._content.hexdigest()
        template = template_of(self.shared.fields, self.options.template)
        expected = forecast(
            self.spool.shapes(),
            lambda group: self.experience_of(template, group),
            self.prices,
            lane=self.options.lane,
        )
        if self.options.budget_nanos is not None and expected.unpriced:
            raise InvalidInput(
                f"the price of {expected.unpriced:,} of {expected.jobs:,} prompts is unknown, so no budget can be kept: "
                "set the prices of their models in promptmill.toml",
                field="budget",
            )
        return Survey(
            name=self.options.name or f"{_printable(stem_of(source))}-{content_hash[:_HASH_SHOWN]}",
            content_hash=content_hash,
            shared=self.shared.fields,
            template=template,
            forecast=expected,
            models=models,
            skipped=tuple(faults.first),
            skipped_count=faults.count,
            notices=tuple(self._notices(models, expected.unpriced)),
        )

    def _notices(self, models: Iterable[str], unpriced: int) -> Iterator[str]:
        horizon = self.today + _RETIRES_SOON
        if self.options.deadline is not None:
            horizon = max(horizon, self.options.deadline.date())
        for model in models:
            facts = self.catalogue.find_model(model)
            if facts is not None and facts.is_retired(horizon):
                yield f"{model} retires on {facts.retires_on}: calls from that day on fail"
        if unpriced:
            yield f"the price of {unpriced} jobs is unknown, so what the batch costs will be too"


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"a name is 1 to {_LONGEST_NAME} printable characters", field="name")


def _printable(stem: str) -> str:
    return "".join(letter if letter.isprintable() else "_" for letter in stem)[: _LONGEST_NAME // 2]
