"""A template can neither look at Python nor fill the memory."""

import pytest

from promptmill.errors import InvalidInput
from promptmill.intake.templates import Template


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x' * 10 ** 9 }}",
        "{{ 10 ** 9 * 'x' }}",
        "{{ [word] * 100000000 }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 999999999) }}",
        "{{ word.ljust(999999999) }}",
        "{{ word | center(999999999) }}",
        "{{ word | indent(width=999999999) }}",
        "{% for _ in range(200000) %}x{% endfor %}",
        "{% for _ in range(90000) %}{{ 'x' * 1000 }}{% endfor %}",
    ],
)
def test_what_would_fill_the_memory_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Template(text).render({"word": "w"})


@pytest.mark.parametrize(
    "text",
    [
        "{{ word.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('true') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ '{0.__class__}'.format(word) }}",
        "{{ row.update(word='x') }}",
    ],
)
def test_nothing_of_python_or_of_this_machine_is_reached(text: str) -> None:
    with pytest.raises(InvalidInput):
        Template(text).render({"word": "w"})


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{{ '%05.1f' % 7 }} {{ 10 % 3 }}", "007.0 1"),
        ("{{ 'order 1234567, 100%%: %s' % number }}", "order 1234567, 100%: 123456789"),
        ("{{ '%s'|format(number) }} {{ '{:>3}'.format(1) }}", "123456789   1"),
        ("{{ word|center(3) }}{{ word.ljust(3) }}{{ '%*d' % (3, 7) }}", " w w    7"),
    ],
)
def test_modest_formats_work(text: str, made: str) -> None:
    assert Template(text).render({"word": "w", "number": 123456789}) == made


def test_modest_sums_and_repetitions_work() -> None:
    assert (
        Template("{{ '-' * 3 }} {{ 2 ** 10 }} {{ price * 3 }} {{ 2 * 1.5 }}").render({"price": 7})
        == "--- 1024 21 3.0"
    )
