"""The window: how many ids may be out."""

from workers.window import GroupLoad, room_in_window


def load(**figures: float) -> GroupLoad:
    facts: dict[str, float | None] = {
        "queued": 0,
        "running": 0,
        "starts_per_s": 0.0,
        "limit_per_s": None,
        **figures,
    }
    return GroupLoad(**facts)  # type: ignore[arg-type]  # ints stand for counts here


def test_an_idle_group_without_limits_fills_its_free_slots() -> None:
    assert room_in_window(load(), slots=100, contended=False) == 100


def test_two_seconds_of_the_limit_are_enough() -> None:
    assert room_in_window(load(limit_per_s=10.0), slots=1000, contended=False) == 20


def test_what_began_in_fact_counts_more_than_estimates_that_are_too_large() -> None:
    assert room_in_window(load(limit_per_s=10.0, starts_per_s=20.0), slots=1000, contended=False) == 40


def test_ids_that_are_out_already_count() -> None:
    assert room_in_window(load(limit_per_s=10.0, queued=15), slots=1000, contended=False) == 5


def test_at_least_one_id_goes_out_under_a_tiny_limit() -> None:
    assert room_in_window(load(limit_per_s=0.1), slots=1000, contended=False) == 1


def test_nothing_goes_out_while_the_group_is_paused_for_long() -> None:
    assert room_in_window(load(paused_s=30.0), slots=1000, contended=False) == 0


def test_nothing_goes_out_without_a_live_worker() -> None:
    assert room_in_window(load(), slots=0, contended=False) == 0


def test_a_contended_group_keeps_to_half_of_the_slots() -> None:
    assert room_in_window(load(), slots=100, contended=True) == 50


def test_a_full_house_keeps_a_reserve_of_what_starts_in_two_seconds() -> None:
    assert room_in_window(load(running=100, starts_per_s=10.0), slots=100, contended=False) == 30


def test_the_window_is_never_more_than_twice_the_slots() -> None:
    assert room_in_window(load(starts_per_s=10_000.0), slots=100, contended=False) == 200
