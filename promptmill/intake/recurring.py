"""What a schedule submits: source and options with templates in them, kept as JSON, filled in for one due time.

The one idea: what a run submits is a function of the schedule and its due time. Submitted again, by whomever, it has the
same name, and finds its batch.

A path is made absolute where the schedule was added, and read where the run is submitted, which is a worker.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from promptmill.errors import InvalidInput
from promptmill.intake.options import SubmitOptions
from promptmill.intake.templates import Template
from promptmill.recurrence import TAG_DUE, TAG_SCHEDULE
from promptmill.states import Lane

LONGEST_PATH = 4_096
# A name, its attributes, and perhaps a call with one short text: {{ due.strftime("%d.%m.%Y") }}
_PLAIN = re.compile(r"""\{\{\s*[^\W\d]\w*(\.[^\W\d]\w*)*(\(("[^"{}]{0,40}"|'[^'{}]{0,40}')?\))?\s*\}\}""")
_NOT_KEPT = frozenset({"new", "deadline", "given", "api_version"})
"""Options that mean one moment, or that who submits knows better."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """One due time of a schedule, for the templates.

    Attributes:
        due: in the zone of the schedule.
        manual: a person asked for it, so it is not the run of its day.
    """

    schedule: str
    due: datetime
    manual: bool = False

    @property
    def run(self) -> str:
        """A word for the due time that is no other's, fit for the name of a file: `20261124T020000+0800`."""
        exactly = ".%f" if self.manual else ""
        stamp = self.due.strftime(f"%Y%m%dT%H%M%S{exactly}%z")
        return stamp.removesuffix("+0000") + "Z" if stamp.endswith("+0000") else stamp

    @property
    def tags(self) -> dict[str, str]:
        """By which its batch is known."""
        return {TAG_SCHEDULE: self.schedule, TAG_DUE: self.due.isoformat()}

    @property
    def variables(self) -> dict[str, Any]:
        """What templates know."""
        return {
            "due": self.due,
            "date": self.due.date().isoformat(),
            "schedule": self.schedule,
            "run": self.run,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurring:
    """What is submitted at each due time.

    Attributes:
        source: the path of a file, with templates; None where the prompts are given here.
        prompts: templates of prompts.
        folder: what a path that is not absolute begins from.
        options: with templates in `name` and `system`; those of `template` know the variables beside a row's fields.
        deadline_after: how long after the due time calls are begun; None for no end.
    """

    source: str | None = None
    prompts: tuple[str, ...] = ()
    folder: str = "/"
    options: SubmitOptions = field(default_factory=SubmitOptions)
    deadline_after: timedelta | None = None

    def document(self) -> dict[str, Any]:
        """As JSON, for the table."""
        kept = {
            each.name: getattr(self.options, each.name)
            for each in fields(SubmitOptions)
            if each.name not in _NOT_KEPT
        }
        usual = SubmitOptions()
        return {
            "source": self.source,
            "prompts": list(self.prompts),
            "folder": self.folder,
            "deadline_s": self.deadline_after.total_seconds() if self.deadline_after else None,
            "options": {
                name: value
                for name, value in kept.items()
                if value is not None and value != getattr(usual, name)
            },
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Back from JSON.

        Raises:
            InvalidInput: a newer version wrote it.
        """
        options = dict(document["options"])
        unknown = options.keys() - {each.name for each in fields(SubmitOptions)}
        if unknown:
            raise InvalidInput(
                f"this version does not know the option {min(unknown)} of a newer one; upgrade the workers"
            )
        if "lane" in options:
            options["lane"] = Lane(options["lane"])
        seconds = document["deadline_s"]
        return cls(
            source=document["source"],
            prompts=tuple(document["prompts"]),
            folder=document["folder"],
            options=SubmitOptions(**options),
            deadline_after=None if seconds is None else timedelta(seconds=seconds),
        )

    def source_at(self, occasion: Occasion) -> str | list[str]:
        """The file, or the prompts, of a due time.

        Raises:
            InvalidInput: a template is wrong.
        """
        known = occasion.variables
        if self.source is None:
            return [filled_in(prompt, known, "prompt") for prompt in self.prompts]
        path = filled_in(self.source, known, "file")
        if len(path) > LONGEST_PATH or "\0" in path:
            raise InvalidInput("the path of the file is no path", field="file")
        return str(Path(self.folder) / path)

    def options_at(self, occasion: Occasion) -> SubmitOptions:
        """The options of a due time.

        Raises:
            InvalidInput: a template is wrong.
        """
        known, options = occasion.variables, self.options
        system = options.system
        return replace(
            options,
            name=self.name_at(occasion),
            system=filled_in(system, known, "system") if isinstance(system, str) else system,
            deadline=None if self.deadline_after is None else occasion.due + self.deadline_after,
            tags={**options.tags, **occasion.tags},
            given=known,
        )

    def name_at(self, occasion: Occasion) -> str:
        """What the batch of a due time is called; of a manual run it ends with the time, so that it is no other's.

        Raises:
            InvalidInput: a template is wrong.
        """
        if self.options.name is None:
            return f"{occasion.schedule}-{occasion.run}"
        name = filled_in(self.options.name, occasion.variables, "name")
        return f"{name}-{occasion.due:%H%M%S.%f}" if occasion.manual else name

    @property
    def is_plain(self) -> bool:
        """Whether its templates only name variables, so that filling them in takes no time worth a word."""
        options = self.options
        texts = (self.source, *self.prompts, options.name, options.system, options.template)
        return all(_is_plain(text) for text in texts if isinstance(text, str))


def _is_plain(template: str) -> bool:
    rest = _PLAIN.sub("", template)
    return not any(opening in rest for opening in ("{{", "{%", "{#"))


def filled_in(template: str, known: Mapping[str, Any], what: str) -> str:
    """A template with the variables of a due time in it; text without a brace is what it is.

    Raises:
        InvalidInput: it is wrong; `field` says which.
    """
    if "{" not in template:
        return template
    try:
        return Template(template, known).render({})
    except InvalidInput as error:
        why = error.why.partition(";")[0]
        raise InvalidInput(f"{why}; known are {', '.join(known)}", field=what) from None
