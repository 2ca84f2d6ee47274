"""Connections that say nothing, too little or too slowly: they are closed, and lock nobody out."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from malformed import CHAT, valid
from serving import serve_here

from sipo_pl.serve.limits import Limits

QUICK = Limits(slots=1, queue=2, timeout=20, connections=9, header_seconds=0.6, arrival_seconds=0.6, idle_seconds=1)
SOON = 8  # seconds, on a busy machine
HOST = b"host: localhost\r\n"


@pytest.fixture(scope="module")
def url(endless: Path) -> Iterator[str]:
    with serve_here(endless, QUICK) as found:
        yield found


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=SOON)


def read(connection: socket.socket) -> bytes:
    """Return all that is sent until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(4096), b""))


def error(answer: bytes, status: int) -> str:
    """Return the message of an error in the interface's own form."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d" % status), answer
    told = json.loads(body)["error"]
    assert set(told) == {"message", "type", "param", "code"}
    return str(told["message"])


def test_a_connection_that_says_nothing_is_closed(url: str) -> None:
    with connect(url) as connection:
        assert read(connection) == b""


def test_a_connection_is_closed_some_time_after_its_answer(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
        assert read(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"], ids=["first", "second"])
def test_a_header_that_comes_byte_by_byte_has_a_time_in_which_to_end(url: str, before: bytes) -> None:
    with connect(url) as connection:
        connection.sendall(before)
        begun = time.monotonic()
        for byte in b"GET /health HTTP/1.1\r\n" + HOST + b"x: " + b"y" * 1000:
            try:
                connection.sendall(bytes([byte]))
            except OSError:  # closed meanwhile
                break
            if time.monotonic() - begun > 3 * QUICK.header_seconds:
                break
            time.sleep(0.02)
        try:
            answer = read(connection)
        except ConnectionResetError:
            answer = b""
        assert time.monotonic() - begun < SOON
    if b"408" in answer:
        assert "the header did not come within 0.6 s" in answer.decode()


def test_half_a_header_is_told_so(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nho")
        assert error(read(connection), 408) == "the header did not come within 0.6 s"


def test_a_body_that_does_not_come_is_told_so(url: str) -> None:
    with connect(url) as connection:
        head = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 99\r\n"
        connection.sendall(head + HOST + b"\r\n{")
        assert error(read(connection), 408) == "the body did not come within 0.6 s"


def test_what_is_no_http_is_told_so_in_the_form_of_the_interface(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(b"HELLO\r\n\r\n")
        assert "no valid HTTP" in error(read(connection), 400)


def test_many_silent_connections_lock_nobody_out(endless: Path) -> None:
    limits = Limits(slots=1, queue=2, connections=20)  # in whose usual times nothing is closed by itself
    with serve_here(endless, limits) as url, ExitStack() as crowd:
        head = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 99\r\n"
        for number in range(3 * limits.most_connections):
            connection = crowd.enter_context(connect(url))
            connection.sendall((b"", b"GET /hea", head + HOST + b"\r\n{")[number % 3])
        begun = time.monotonic()
        assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.post(url + CHAT, json=valid("talk"), timeout=SOON).status_code == 200
        assert time.monotonic() - begun < SOON


def test_a_server_full_of_requests_says_so_and_how_it_is(endless: Path) -> None:
    limits = Limits(slots=1, queue=2, connections=0)
    with serve_here(endless, limits) as url, ExitStack() as crowd, httpx.Client(timeout=SOON) as client:
        body = valid("talk", max_tokens=1900, stream=True)
        for _ in range(limits.most_connections):
            crowd.enter_context(client.stream("POST", url + CHAT, json=body))
        refused = httpx.get(f"{url}/v1/models")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "too_many_connections"
        assert refused.headers["connection"] == "close"
        assert httpx.get(f"{url}/health").json()["open"] == 3


@pytest.mark.parametrize("host", ["127.0.0.2", "LocalHost"])
def test_a_server_answers_under_the_address_that_it_tells_and_the_name_that_it_got(endless: Path, host: str) -> None:
    with serve_here(endless, QUICK, host) as url:
        port = url.rpartition(":")[2]
        assert httpx.get(f"{url}/v1/models").status_code == 200
        local = [
            f"{host}:{port}",
            host.upper(),
            "localHOST",
            "localhost.",
            f"127.1.2.3:{port}",
            "[::1]",
            f"[::1]:{port}",
        ]
        for name in local:
            assert httpx.get(f"{url}/health", headers={"host": name}).status_code == 200, name
        for name in (
            "elsewhere.example",
            f"elsewhere.example:{port}",
            "localhost.example",
            "10.0.0.1",
            "[fe80::1]",
            "",
        ):
            assert httpx.get(f"{url}/health", headers={"host": name}).status_code == 403, name
