"""What an estimate says that it rests on."""

from producers.forecast_shown import rests_on
from promptmill.experience import Basis

GROUP = "claude-haiku-5-5"


def test_answers_that_were_cut_off_are_named_where_the_estimate_rests_on_them() -> None:
    cut = "cut off at max_tokens: with more room they are longer"
    assert rests_on(Basis(template=40, template_cut=7), GROUP).endswith(f"template, 7 of them {cut}")
    assert rests_on(Basis(model=20, model_cut=20), GROUP).endswith(f"other prompts, all of them {cut}")


def test_of_another_level_they_are_not() -> None:
    assert (
        rests_on(Basis(template=40, model=20, model_cut=20), GROUP)
        == "the last 40 answers with this template"
    )
