"""The page in a browser, by looking and clicking."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from promptmill.testing import simulated_claude
from tests.end_to_end.dashboard_page import TOKEN, Served, served

pytestmark = pytest.mark.timeout(180)

PROMPT = "the prompt that no page may show"
MARKUP = '<img src=x onerror="document.title=1"> & <b>films</b>'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_cli: Callable[..., Any]) -> Iterator[Served]:
    """A page to act through, over a batch that was answered but for one row."""
    folder = tmp_path_factory.mktemp("page")
    with simulated_claude() as claude:
        claude.set_scenario(fault=[{"kind": "server_error", "status": 400, "text": "refuse this"}])
        cli = make_cli(folder, claude)
        rows = cli.file(
            "rows.jsonl", {"prompt": PROMPT}, {"prompt": "a"}, {"prompt": f"refuse this: {PROMPT}"}
        )
        ran = cli("run", rows, "--name", "the-first", timeout=120)
        assert ran.returncode == 3, ran.stderr
        with served(cli, PROMPTMILL_DASHBOARD_TOKEN=TOKEN) as page:
            yield page


@pytest.fixture
def page(browser: Browser, place: Served) -> Iterator[Page]:
    """A page of a browser of its own; a word on the console fails the test."""
    with browser.new_context() as context:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: is_ours(message.text) and said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.set_default_timeout(15_000)
        page.goto(place.url)
        yield page
        assert said == []


def is_ours(said: str) -> bool:
    """The browser tells of every answer that is an error, also of one that was meant to be."""
    return not said.startswith("Failed to load resource")


def sign_in(page: Page, token: str = TOKEN) -> None:
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Token").fill(token)
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()


def open_batch(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)


def test_a_batch_is_shown_as_soon_as_it_is_there(page: Page, place: Served) -> None:
    expect(page.get_by_role("row", name="the-first")).to_contain_text("3 of 3, 1 not answered")
    expect(page.get_by_text("live", exact=True)).to_be_visible()

    place.batch("comes-later", jobs=1234)

    expect(page.get_by_role("row", name="comes-later")).to_contain_text("0 of 1,234")


def test_the_runs_of_a_schedule_that_have_ended_are_one_line(page: Page, place: Served) -> None:
    for due in "abc":
        place.batch(f"tick-{due}", jobs=0, tags={"schedule": "tick", "due": due})

    last = page.get_by_role("row", name="tick-c")
    expect(last).to_contain_text("and 2 more runs of tick")
    expect(page.get_by_role("row", name="tick-a")).to_have_count(0)
    last.get_by_role("link", name="tick", exact=True).click()
    expect(page).to_have_url(re.compile("#schedules$"))


def test_a_name_that_looks_like_markup_is_text(page: Page, place: Served) -> None:
    place.batch(MARKUP)

    open_batch(page, MARKUP)

    assert page.title() == f"{MARKUP} · Promptmill"
    assert page.locator("main img, main b").count() == 0


def test_a_batch_says_what_went_wrong_and_what_to_do_and_never_a_prompt(page: Page, place: Served) -> None:
    open_batch(page, "the-first")

    wrong = page.get_by_role("region", name="What went wrong")
    expect(wrong.get_by_role("row", name="prompt rejected")).to_contain_text("change the prompt")
    told = page.content() + "".join(
        place.get(path).body.decode()
        for path in ("/api/overview", "/api/batches/the-first", "/metrics", "/api/limits")
    )
    assert "the-first" in told
    assert PROMPT not in told
    assert "Say" not in place.get("/api/batches/the-first").document["errors"]
    assert "message" not in place.get("/api/batches/the-first").document["errors"][0]


def test_a_person_signs_in_and_pauses_resumes_and_cancels(page: Page, place: Served) -> None:
    place.batch("steered")
    expect(page.get_by_role("row", name="steered")).to_be_visible()
    sign_in(page)
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    open_batch(page, "steered")

    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("paused by a person")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the batch").click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("ended")
    expect(page.get_by_text("3 jobs canceled.")).to_be_visible()


def test_a_budget_is_set_and_a_wrong_one_is_explained(page: Page, place: Served) -> None:
    place.batch("dear", model="claude-haiku-5-5")
    sign_in(page)
    open_batch(page, "dear")

    page.get_by_role("button", name="Set budget").click()
    page.get_by_label("Dollars, or none").fill("much")
    page.get_by_role("button", name="Set it").click()
    expect(page.get_by_role("alert")).to_contain_text("'much' is no amount in dollars")
    expect(page.get_by_label("Dollars, or none")).to_have_value("much")
    page.get_by_label("Dollars, or none").fill("12.50")
    page.get_by_role("button", name="Set it").click()

    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".figure", has_text="Budget")).to_contain_text("$12.50")


def test_a_double_click_is_one_action(page: Page, place: Served) -> None:
    place.batch("clicked")
    sign_in(page)
    open_batch(page, "clicked")
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))  # noqa: PLW0108  # playwright marks its handlers

    page.get_by_role("button", name="Pause").evaluate("(button) => { button.click(); button.click(); }")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    page.get_by_role("button", name="Set budget").click()
    page.get_by_label("Dollars, or none").fill("5")
    page.get_by_role("button", name="Set it").evaluate("(button) => { button.click(); button.click(); }")
    expect(page.get_by_role("dialog")).to_have_count(0)

    sent = [each.url.rpartition("/")[2] for each in asked if each.method == "POST"]
    assert sent == ["pause", "set"]


def test_the_focus_stays_where_it_is_while_a_batch_changes(page: Page, place: Served) -> None:
    place.batch("focused")
    sign_in(page)
    open_batch(page, "focused")
    signed_in = {"Authorization": f"Bearer {TOKEN}"}
    cancel = page.get_by_role("button", name="Cancel")

    cancel.focus()
    for what, then in (("pause", "Resume"), ("resume", "Pause")):
        place.ask("POST", f"/api/batches/focused/{what}", {}, **signed_in)
        expect(page.get_by_role("button", name=then)).to_be_visible()
        expect(cancel).to_be_focused()
    page.get_by_role("button", name="Pause").press("Enter")

    expect(page.get_by_role("button", name="Resume")).to_be_focused()


def test_who_is_signed_out_elsewhere_is_offered_to_sign_in(page: Page, place: Served) -> None:
    place.batch("orphaned")
    sign_in(page)
    open_batch(page, "orphaned")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.context.clear_cookies()

    page.get_by_role("button", name="Pause").click()

    expect(page.get_by_text("That did not work: sign in first")).to_be_visible()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)


def test_eight_tabs_are_served_and_a_button_in_each(
    page: Page, place: Served, wait_until: Callable[..., None]
) -> None:
    sign_in(page)
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    tabs = [page, *(page.context.new_page() for _ in range(7))]
    for tab in tabs[1:]:
        tab.goto(place.url)
        expect(tab.get_by_role("row", name="the-first")).to_be_visible()
        expect(tab.locator("#line")).to_have_text(re.compile("live|every few seconds"))

    found = [tab.evaluate("fetch('/api/session').then((answer) => answer.status)") for tab in tabs]
    assert found == [200] * len(tabs)

    def with_a_stream() -> list[Page]:
        return [tab for tab in tabs if tab.locator("#line").inner_text() == "live"]

    wait_until(lambda: len(with_a_stream()) == 3, timeout=12)
    first = with_a_stream()[0]
    tabs.remove(first)
    first.close()

    wait_until(lambda: len(with_a_stream()) == 3, timeout=12)  # whoever asks first


def test_a_tab_that_nobody_sees_holds_no_line(page: Page) -> None:
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    be_seen = "(hidden) => { Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden }); document.dispatchEvent(new Event('visibilitychange')); }"

    page.evaluate(be_seen, True)
    page.wait_for_function("navigator.locks.query().then((found) => found.held.length === 0)")
    with page.expect_request("**/api/live*"):
        page.evaluate(be_seen, False)

    expect(page.get_by_text("live", exact=True)).to_be_visible()


def test_a_wrong_token_is_told_in_the_dialog_and_escape_leaves_it(page: Page) -> None:
    sign_in(page, "not-the-token-at-all")

    expect(page.get_by_role("alert")).to_contain_text("this is not the token")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Sign in")).to_be_focused()


def test_signing_out_takes_the_buttons_away(page: Page, place: Served) -> None:
    place.batch("left-alone")
    sign_in(page)
    open_batch(page, "left-alone")
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()

    page.get_by_role("button", name="Sign out").click()

    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def test_the_keyboard_reaches_the_content_and_a_batch(page: Page) -> None:
    expect(page.get_by_role("row", name="the-first")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")

    assert page.evaluate("document.activeElement.closest('table') !== null")
    page.keyboard.press("Enter")

    expect(page.get_by_role("link", name="← All batches")).to_be_visible()


def test_where_streams_do_not_get_through_the_figures_come_all_the_same(page: Page, place: Served) -> None:
    page.route("**/api/live*", lambda route: route.fulfill(status=404, body=""))

    page.reload()

    expect(page.get_by_role("row", name="the-first")).to_be_visible()
    expect(page.get_by_text("every few seconds")).to_be_visible()


@pytest.mark.parametrize("path", ["/", "/batch/the-first"])
def test_nothing_sticks_out_at_400_pixels(page: Page, place: Served, path: str) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(place.url + path)
    expect(page.get_by_role("heading", level=2).first).to_be_visible()

    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(browser: Browser, place: Served, scheme: Any) -> None:
    with browser.new_context(color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(place.url)
        expect(page.get_by_role("row", name="the-first")).to_be_visible()
        colours = page.evaluate(COLOURS)

    assert len(colours) > 20
    assert [each for each in colours if contrast(each["text"], each["back"]) < 4.5] == []


def test_the_whole_page_is_small_and_asks_only_its_own_server(browser: Browser, place: Served) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        sizes: dict[str, int] = {}
        page.on(
            "response",
            lambda answer: sizes.update({answer.url: int(answer.headers.get("content-length", 0))}),
        )
        page.goto(place.url)
        expect(page.get_by_role("row", name="the-first")).to_be_visible()

    assert {re.match(r"https?://[^/]+", url)[0] for url in sizes} == {place.url}  # type: ignore[index]  # all do
    assert len([url for url in sizes if "/static/" in url]) > 5
    assert sum(sizes.values()) < 30_000
    folder = Path(__file__).parents[2] / "producers" / "dashboard" / "static"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 100_000


@pytest.mark.chaos
def test_a_server_that_went_and_came_back_is_found_again(
    browser: Browser, make_cli: Callable[..., Any], tmp_path: Path
) -> None:
    with simulated_claude() as claude, browser.new_context() as context:
        cli = make_cli(tmp_path, claude)
        page = context.new_page()
        with served(cli) as first:
            first.batch("stays")
            page.goto(first.url)
            expect(page.get_by_role("row", name="stays")).to_be_visible()
            assert page.get_by_role("button").count() == 0
        port = first.url.rpartition(":")[2]
        expect(page.get_by_text("no word from the server")).to_be_visible(timeout=15_000)
        with served(cli, "--port", port) as again:
            again.batch("came-meanwhile")
            expect(page.get_by_role("row", name="came-meanwhile")).to_be_visible(timeout=30_000)
            expect(page.get_by_text("live", exact=True)).to_be_visible(timeout=30_000)


COLOURS = """() => {
  const solid = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const back = getComputedStyle(each).backgroundColor;
      if (!/, 0\\)$/.test(back)) return back;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *")]
    .filter((node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()) && node.offsetParent)
    .map((node) => ({ words: node.textContent, text: getComputedStyle(node).color, back: solid(node) }));
}"""


def contrast(text: str, back: str) -> float:
    """As the Web Content Accessibility Guidelines 2.2 reckon it; 4.5 is their AA for small text."""
    lighter, darker = sorted((luminance(text), luminance(back)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
