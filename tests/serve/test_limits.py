"""What a server refuses, and that it goes on: malformed requests, keys, limits, a port that is taken."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from malformed import CHAT, JSON, RAW, WRONG, Malformed, malformed, valid
from serving import Server, serve
from tiny_run import Command, environment

KEY = "a-key-of-the-tests"
BODY_BYTES = 20_000
KEYED = {"authorization": f"Bearer {KEY}"}
KINDS = malformed("talk", BODY_BYTES)
LIMITS = ("--slots", 1, "--queue", 2, "--timeout", 1.5, "--body_bytes", BODY_BYTES)


@pytest.fixture(scope="module")
def server(endless: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limits")
    (folder / "keys").write_text(f"another\n{KEY}\n")
    with serve(endless, folder / "log", "--api_key_file", folder / "keys", *LIMITS) as running:
        yield running
        said = running.log.read_text()
        assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=KEYED, timeout=60) as made:
        yield made


def well(client: httpx.Client) -> bool:
    """Return whether the server answers as ever."""
    return client.post(CHAT, json=valid("talk")).status_code == 200


def test_there_are_enough_kinds() -> None:
    assert len({one.name for one in KINDS}) == len(KINDS) >= 30


@pytest.mark.parametrize("one", KINDS, ids=lambda one: one.name)
def test_malformed_requests_are_refused(client: httpx.Client, one: Malformed) -> None:
    response = client.request(one.method, one.path, content=one.body, headers=one.headers)
    assert response.status_code in WRONG, response.text
    error = response.json()["error"]
    assert error["message"]
    assert "Error" not in error["message"]  # a name of an exception would tell nobody what to do
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("raw", RAW, ids=range(len(RAW)))
def test_what_is_no_http_ends_its_connection_alone(server: Server, client: httpx.Client, raw: bytes) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200")), answer[:200]
    assert well(client)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["model", "messages", "weights", "temperature", "top_p", "seed", "stop", "stream", "n", "tools"]
)


@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(NAMES | st.text(max_size=10), ANY, min_size=1, max_size=3))
def test_no_value_of_any_field_breaks_the_server(client: httpx.Client, changes: dict[str, Any]) -> None:
    body = json.dumps({**valid("talk"), **changes, "max_tokens": 1}).encode("utf-8", "surrogatepass")
    response = client.post(CHAT, content=body, headers=JSON)
    assert response.status_code in (200, *WRONG), (changes, response.text)


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": KEY}, {"authorization": "Basic eDp5"}],
    ids=["none", "wrong", "bare", "basic"],
)
def test_a_key_is_needed_where_there_is_one(server: Server, headers: dict[str, str]) -> None:
    for path in ("/v1/models", "/front", "/metrics", "/nothing"):
        response = httpx.get(server.url + path, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert KEY not in response.text
    assert httpx.post(server.url + CHAT, json=valid("talk"), headers=headers).status_code == 401
    for path in ("/", "/health", "/page/main.js"):
        assert httpx.get(server.url + path, headers=headers).status_code == 200
    assert httpx.get(f"{server.url}/v1/models", headers={"authorization": "bearer another"}).status_code == 200


def test_names_of_other_machines_do_not_reach_a_local_server(client: httpx.Client, server: Server) -> None:
    port = server.url.rpartition(":")[2]
    for host, status in (("elsewhere.example", 403), (f"localhost:{port}", 200), (f"[::1]:{port}", 200)):
        assert client.get("/health", headers={"host": host}).status_code == status


def test_too_many_requests_and_too_long_ones_are_told_so(server: Server, client: httpx.Client) -> None:
    async def ask(count: int) -> list[httpx.Response]:
        body = valid("talk", max_tokens=1900)
        async with httpx.AsyncClient(base_url=server.url, headers=KEYED, timeout=60) as many:
            return await asyncio.gather(*(many.post(CHAT, json=body) for _ in range(count)))

    found = asyncio.run(ask(6))
    codes = [response.json()["error"]["code"] for response in found if response.status_code != 200]
    assert codes.count("queue_full") == 3  # one runs and two wait
    assert codes.count("timeout") >= 2
    refused = next(response for response in found if response.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert well(client)


def test_a_time_limit_ends_a_stream_with_an_error(client: httpx.Client) -> None:
    with client.stream("POST", CHAT, json=valid("talk", max_tokens=1900, stream=True)) as response:
        lines = [line for line in response.iter_lines() if line]
    assert len(lines) > 5
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "timeout"
    assert well(client)


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded(command: Command, server: Server, endless: Path) -> None:
    port = server.url.rpartition(":")[2]
    said = command("serve", "--model", endless / "no such folder", "--port", port)
    assert said.code == 2
    assert f"127.0.0.1:{port}: cannot listen there" in said.err
    assert "--port" in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--weights", "0.9,0.9"), "they sum to 1.8, not 1"),
        (("--slots", "0"), "--slots: expected a number >0, found 0"),
        (("--timeout", "0"), "--timeout: expected a number >0, found 0"),
        (("--max_length", "99999"), "more than the model's context of 2048"),
        (("--temperature", "-1"), "--temperature: expected a number >=0, found -1"),
        (("--name", "a@b"), "'a@b' cannot be a model's name"),
        (("--api_key_file", "nowhere"), "nowhere: no file of keys"),
        (("--port", "99999"), "--port: expected a number >=0 and <65536, found 99999"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_options_are_said(command: Command, endless: Path, words: tuple[str, ...], said: str) -> None:
    found = command("serve", "--model", endless, *(() if "--port" in words else ("--port", "0")), *words)
    assert found.code in (1, 2)
    assert said in found.err


def test_missing_packages_are_named_with_the_extra(endless: Path) -> None:
    program = "import sys; sys.modules['uvicorn'] = None; from sipo_pl.cli.main import main; sys.exit(main())"
    words = [sys.executable, "-c", program, "serve", "--model", str(endless)]
    found = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "not installed (uvicorn): pip install 'sipo_pl[serve]'" in found.stderr


def test_a_signal_ends_a_server_and_its_answers(endless: Path, tmp_path: Path) -> None:
    with serve(endless, tmp_path / "log", "--weights", "1,0") as running:
        body = valid("talk", max_tokens=1900, stream=True)  # takes longer than the few seconds that are granted
        with httpx.stream("POST", running.url + CHAT, json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            assert running.stop(signal.SIGINT) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
