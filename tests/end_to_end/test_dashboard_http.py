"""Who gets in and who does not, asked without a browser; and what every answer carries."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from tests.end_to_end.dashboard_page import TOKEN, Answer, Served, served
from tests.ports import free_port

pytestmark = pytest.mark.timeout(120)

ADDRESSES = ("/api/overview", "/api/history", "/api/batches", "/api/limits", "/api/live", "/metrics")
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def nowhere() -> Any:
    """An endpoint that nothing asks."""
    return type("Nowhere", (), {"url": "http://127.0.0.1:9"})()


@pytest.fixture(scope="module")
def open_page(
    tmp_path_factory: pytest.TempPathFactory,
    make_cli: Callable[..., Any],
    nowhere: Any,
    wait_until: Callable[..., None],
) -> Iterator[Served]:
    """A page of this machine, without a token."""
    with served(make_cli(tmp_path_factory.mktemp("open"), nowhere)) as page:
        page.batch("mine")
        wait_until(lambda: page.get("/api/batches").document)
        yield page


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, make_cli: Callable[..., Any], nowhere: Any
) -> Iterator[Served]:
    """A page that others can reach, so it has a token."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(f"{TOKEN}\n")
    cli = make_cli(folder, nowhere)
    words = ("--allow-host", "mill.example.org")
    with served(cli, *words, PROMPTMILL_DASHBOARD_TOKEN_FILE="token") as page:
        page.batch("mine")
        yield page


def signed_in(page: Served) -> dict[str, str]:
    """The headers of a browser in which somebody is signed in."""
    answer = page.ask("POST", "/api/session", {"token": TOKEN}, Origin=page.url)
    assert answer.status == 200
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    guard = answer.document["guard"]
    return {"Cookie": cookie.partition(";")[0], "Origin": page.url, "X_Promptmill_Guard": guard}


def test_on_this_machine_everything_is_shown_and_nothing_done(open_page: Served) -> None:
    assert open_page.get("/api/overview").document["batches"][0]["name"] == "mine"
    assert open_page.get("/api/batches").document[0]["name"] == "mine"
    assert open_page.get("/api/batches/mine").document["jobs"]["total"] == 3
    assert b"promptmill_" in open_page.get("/metrics").body

    refused = open_page.ask("POST", "/api/batches/mine/cancel", {}, Origin=open_page.url)

    assert refused.status == 403
    assert "PROMPTMILL_DASHBOARD_TOKEN" in refused.document["error"]
    assert open_page.ask("POST", "/api/session", {"token": ""}, Origin=open_page.url).status == 403
    assert open_page.get("/api/batches/mine").document["state"] == "active"


def test_what_is_not_there_is_told_in_a_sentence(open_page: Served) -> None:
    assert open_page.get("/api/batches/other").status == 404
    assert "no batch 'other'" in open_page.get("/api/batches/other").document["error"]
    for path in ("/nothing", "/static/../server.py", "/static/%2e%2e%2fserver.py", "/api/nothing"):
        assert open_page.get(path).status == 404
    assert open_page.ask("PUT", "/api/batches/mine/pause", {}).status == 405


@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_a_strange_name_is_refused_so_that_rebinding_it_reads_nothing(open_page: Served, name: str) -> None:
    for path in (*ADDRESSES, "/", "/api/session"):
        answer = open_page.get(path, Host=name)
        assert answer.status == 421
        assert b"mine" not in answer.body


def test_another_site_cannot_have_a_browser_ask(open_page: Served) -> None:
    assert open_page.get("/api/overview", Sec_Fetch_Site="cross-site").status == 403
    assert open_page.get("/api/overview", Sec_Fetch_Site="same-origin").status == 200
    assert (
        "Access-Control-Allow-Origin"
        not in open_page.get("/api/overview", Origin="http://evil.example").headers
    )


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/api/overview", "/nothing", "/static/page.js", "/metrics"]
)
def test_every_answer_tells_the_browser_to_run_nothing_else(open_page: Served, path: str) -> None:
    headers = open_page.get(path).headers

    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Server"] == "promptmill"


def test_a_file_that_has_not_changed_is_not_sent_again(open_page: Served) -> None:
    first = open_page.get("/static/page.js", Accept_Encoding="gzip")
    again = open_page.get("/static/page.js", If_None_Match=first.headers["ETag"])

    assert first.headers["Content-Encoding"] == "gzip"
    assert (again.status, again.body) == (304, b"")


def test_beyond_this_machine_nothing_is_read_without_the_token(guarded: Served) -> None:
    for path in ADDRESSES:
        for headers in ({}, {"Authorization": "Basic wrong"}, {"Cookie": "promptmill_session=wrong"}):
            answer = guarded.get(path, **headers)
            assert answer.status == 401
            assert b"mine" not in answer.body

    assert guarded.get("/healthz", Host="dashboard").status == 200
    assert guarded.get("/").status == 200
    assert guarded.get("/api/overview", Host="mill.example.org", **BEARER).status == 200
    assert guarded.get("/metrics", **BEARER).status == 200
    assert guarded.get("/api/overview", Host="evil.example", **BEARER).status == 421


def test_a_program_with_the_token_acts(guarded: Served) -> None:
    guarded.batch("steered")

    paused = guarded.ask("POST", "/api/batches/steered/pause", {}, **BEARER)

    assert paused.document["said"].startswith("steered is paused")
    assert guarded.get("/api/batches/steered", **BEARER).document["paused_by"] == "person"


def test_an_action_needs_the_session_the_guard_and_our_own_origin(guarded: Served) -> None:
    guarded.batch("held")
    ours = signed_in(guarded)

    def act(path: str = "/api/batches/held/pause", **changed: str | None) -> Answer:
        headers = {name: value for name, value in {**ours, **changed}.items() if value is not None}
        return guarded.ask("POST", path, {}, **headers)

    for path in ("/api/batches/held/pause", "/api/schedules/nightly/run"):
        assert act(path, Cookie=None).status == 401
        assert act(path, Origin="http://evil.example").status == 403
        assert act(path, Origin="null").status == 403
        assert act(path, Origin=None).status == 403
        assert act(path, X_Promptmill_Guard=None).status == 403
        assert act(path, X_Promptmill_Guard="wrong").status == 403
        assert act(path, Content_Type="text/plain").status == 415
    assert guarded.get("/api/batches/held", **BEARER).document["state"] == "active"
    assert act().status == 200
    assert act().status == 200


def test_signing_in_is_for_our_own_page_and_out_is_out(guarded: Served) -> None:
    assert guarded.ask("POST", "/api/session", {"token": TOKEN}, Origin="http://evil.example").status == 403
    assert guarded.ask("POST", "/api/session", {"token": TOKEN + "x"}, Origin=guarded.url).status == 403
    assert guarded.ask("POST", "/api/session", {"token": ["x"]}, Origin=guarded.url).status == 400
    ours = signed_in(guarded)
    assert guarded.get("/api/overview", **ours).status == 200

    guarded.ask("DELETE", "/api/session", {}, **ours)

    assert guarded.get("/api/overview", **ours).status == 401


def test_a_wrong_token_costs_a_second_in_a_header_too_and_a_right_one_nothing(guarded: Served) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        tried = [
            pool.submit(guarded.get, path, Authorization="Bearer of-no-good-news")
            for path in ("/api/overview", "/metrics", "/api/live")
        ]
        rights = [took(lambda: guarded.get("/api/overview", **BEARER)) for _ in range(4)]

    assert [answer.status for answer, _ in rights] == [200] * 4
    assert {each.result().status for each in tried} == {401}
    assert time.monotonic() - began >= 1.0 > min(seconds for _, seconds in rights)


def took(ask: Callable[[], Answer]) -> tuple[Answer, float]:
    """What was answered, and after how many seconds."""
    began = time.monotonic()
    return ask(), time.monotonic() - began


def test_nothing_tells_for_free_whether_a_token_is_right(guarded: Served) -> None:
    assert guarded.get("/api/session", **BEARER).document == guarded.get("/api/session").document


def test_the_cookie_alone_does_not_act_nor_learn_how(guarded: Served) -> None:
    ours = signed_in(guarded)

    assert "guard" not in guarded.get("/api/session", Cookie=ours["Cookie"]).document


def test_the_cookie_is_of_this_port_and_by_tls_of_this_host_alone(guarded: Served) -> None:
    port = guarded.url.rpartition(":")[2]
    by_tls = {"Host": "mill.example.org:8443", "Origin": "https://mill.example.org:8443"}
    cookie = guarded.ask("POST", "/api/session", {"token": TOKEN}, **by_tls).headers["Set-Cookie"]

    assert signed_in(guarded)["Cookie"].startswith(f"promptmill_session_{port}=")
    assert cookie.startswith("__Host-promptmill_session_8443=")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie
    seen = guarded.get("/api/session", Cookie=cookie.partition(";")[0], **by_tls)
    assert seen.document["signed_in"]


MALFORMED: tuple[tuple[bytes, dict[bytes, bytes], bytes], ...] = (
    (b"POST /api/session", {b"Content-Type": b"application/json"}, b'{"token": "\\ud800"}'),
    (b"POST /api/session", {b"Content-Type": b"application/json; charset=foo"}, b"{}"),
    (b"POST /api/session", {b"Content-Type": b"application/json"}, b"[" * 16_000),
    (b"POST /api/session", {b"Content-Type": b"application/json"}, b"\xff"),
    (b"GET /api/overview", {b"Authorization": b"Bearer \xff"}, b""),
)


@pytest.mark.parametrize(("line", "headers", "body"), MALFORMED)
def test_what_is_malformed_is_the_askers_fault(
    guarded: Served, line: bytes, headers: dict[bytes, bytes], body: bytes
) -> None:
    assert raw(guarded, line, headers, body).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("line", "headers", "body", "status"),
    [
        (b"GET /api/session", {b"Cookie": b"promptmill_session=\xff; \xff"}, b"", b"200"),
        (b"GET /api/batches/%ed%a0%80%ff%00", {}, b"", b"404"),
        (b"GET /api/overview", {b"If-None-Match": b"\xff"}, b"", b"200"),
        (b"POST /api/session", {b"Origin": b"http://["}, b"{}", b"403"),
        (
            b"POST /api/batches/mine/retry",
            {b"Content-Type": b"application/json"},
            b'{"only": {}}',
            b"422",
        ),
        (
            b"POST /api/batches/mine/set",
            {b"Content-Type": b"application/json"},
            b'{"budget": "\\ud800"}',
            b"422",
        ),
    ],
)
def test_what_is_odd_is_no_fault_of_ours(
    guarded: Served, line: bytes, headers: dict[bytes, bytes], body: bytes, status: bytes
) -> None:
    bearer = {} if b"/api/session" in line else {b"Authorization": f"Bearer {TOKEN}".encode()}

    assert raw(guarded, line, {**bearer, **headers}, body).startswith(b"HTTP/1.1 " + status)


def raw(page: Served, line: bytes, headers: dict[bytes, bytes], body: bytes) -> bytes:
    """The first line of the answer to what no library would send."""
    host, port = page.url.removeprefix("http://").split(":")
    sent = {b"Host": f"{host}:{port}".encode(), b"Origin": page.url.encode(), b"Connection": b"close"}
    sent |= {b"Content-Length": b"%d" % len(body), **headers}
    lines = [line + b" HTTP/1.1", *(b"%s: %s" % each for each in sent.items()), b"", body]
    with socket.create_connection((host, int(port)), timeout=30) as open_line:
        open_line.sendall(b"\r\n".join(lines))
        with open_line.makefile("rb") as told:
            return told.readline()


def test_what_cannot_be_done_is_told_in_a_sentence(guarded: Served) -> None:
    def act(path: str, document: object) -> Answer:
        return guarded.ask("POST", path, document, **BEARER)

    guarded.batch("told")
    assert act("/api/batches/none-such/pause", {}).status == 404
    assert act("/api/batches/told/set", {"budget": "-1"}).status == 422
    assert act("/api/batches/told/set", {}).status == 422
    assert act("/api/batches/told/retry", {"only": "succeeded"}).status == 422
    assert act("/api/batches/told/delete", {}).status == 404
    assert act("/api/schedules/none-such/run", {}).status == 404
    assert act("/api/batches/told/pause", ["x"]).status == 400
    assert act("/api/batches/told/pause", {"x": "y" * 20_000}).status == 413
    assert act("/api/batches/told/cancel", {}).status == 200
    answer = act("/api/batches/told/pause", {})
    assert answer.status == 409
    assert "told has ended" in answer.document["error"]


def test_a_stream_ends_when_its_reader_signs_out(guarded: Served) -> None:
    ours = signed_in(guarded)
    host, port = guarded.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line, line.makefile("rb") as told:
        line.sendall(
            f"GET /api/live HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {ours['Cookie']}\r\nConnection: close\r\n\r\n".encode()
        )
        assert any(b"event: overview" in each for each in told)

        guarded.ask("DELETE", "/api/session", {}, **ours)

        assert list(told)[-1] == b"\r\n"  # the last chunk, and then the end


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["--host", "0.0.0.0"], {}, "so it needs a token"),  # it is refused
        (["--allow-host", "mill.example.org"], {}, "so it needs a token"),
        ([], {"PROMPTMILL_DASHBOARD_TOKEN": "short"}, "fewer than 16 characters"),
        ([], {"PROMPTMILL_DASHBOARD_TOKEN_FILE": "none"}, "cannot be read"),
    ],
)
def test_what_would_open_it_to_strangers_is_refused_at_the_start(
    bare_cli: Any, words: list[str], environment: dict[str, str], said: str
) -> None:
    done = bare_cli("dashboard", *words, **environment)

    assert done.returncode == 1
    assert "PROMPTMILL_DASHBOARD_TOKEN" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(bare_cli: Any, open_page: Served) -> None:
    port = open_page.url.rpartition(":")[2]

    done = bare_cli("dashboard", "--port", port)

    assert done.returncode == 1
    assert f"--port: 127.0.0.1:{port} cannot be had" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.chaos
def test_up_starts_the_page_and_stops_it(bare_cli: Any, wait_until: Callable[..., None]) -> None:
    port = free_port()
    words = ("up", "--flower-port", "0", "--dashboard-port", str(port))
    running = bare_cli.start(*words, PROMPTMILL_DASHBOARD_TOKEN=TOKEN)
    page = Served(f"http://127.0.0.1:{port}", None)
    try:
        assert any(said == f"dashboard at {page.url}\n" for said in running.stderr)
        wait_until(lambda: answers(page), timeout=60)
        assert page.get("/api/session").document["can_act"]
        running.terminate()
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.communicate()
    assert not answers(page)


def answers(page: Served) -> bool:
    try:
        return page.get("/healthz").status == 200
    except OSError:
        return False


def test_it_begins_cold_and_gives_no_warning(bare_cli: Any) -> None:
    cold = replace(bare_cli, popen=subprocess.Popen)

    with served(cold, PYTHONWARNINGS="error") as page:
        assert page.get("/api/overview").status == 200
        assert page.get("/metrics").status == 200

    assert not (cold.folder / ".promptmill" / "logs" / "errors.log").exists()


def test_the_token_is_given_to_no_worker(bare_cli: Any) -> None:
    from producers.environment import environment_for  # noqa: PLC0415
    from promptmill.settings import load  # noqa: PLC0415

    settings = load(environ={"PROMPTMILL_DASHBOARD_TOKEN": TOKEN}, folder=bare_cli.folder)

    assert TOKEN not in json.dumps(
        environment_for(settings, {**os.environ, "PROMPTMILL_DASHBOARD_TOKEN": TOKEN})
    )
