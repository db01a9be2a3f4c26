"""What `simulate` says when it starts."""

from producers.cli.simulate import start_line

URL = "http://127.0.0.1:8787"


def test_it_says_how_to_try_it() -> None:
    assert start_line(URL, rpm=None, itpm=60.0, otpm=None) == (
        f"simulated Claude at {URL}; try it with: export ANTHROPIC_BASE_URL={URL}"
    )


def test_a_limit_that_it_never_states_is_to_be_lifted_by_the_person() -> None:
    assert start_line(URL, rpm=60.0, itpm=0.0, otpm=0.0) == (
        f"simulated Claude at {URL}; try it (where it has no limit, workers keep their default one unless you set 0 too) "
        f"with: export ANTHROPIC_BASE_URL={URL} PROMPTMILL_ITPM=0 PROMPTMILL_OTPM=0"
    )
