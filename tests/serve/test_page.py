"""The page: what it is made of, and, where there is a browser, what it does."""

import re
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from chromium import Browser, browse, find_browser
from serving import Server, serve

from sipo_pl.use.api import Policies, load

BROWSER = find_browser()
PARTS = sorted(path.name for path in (files("sipo_pl.serve") / "page").iterdir())
VALUES = "[...document.querySelectorAll('.slider output')].map((one) => one.textContent)"
ENDED = "document.getElementById('stop').disabled"
SECRET = "open"


@pytest.fixture(scope="module")
def server(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "keys").write_text(SECRET)
    with serve(served, folder / "log", "--api_key_file", folder / "keys") as running:
        yield running


@pytest.fixture(scope="module")
def policies(served: Path) -> Policies:
    return load(served)


@pytest.fixture
def browser(server: Server, tmp_path: Path) -> Iterator[Browser]:
    """The page, with its key given."""
    if BROWSER is None:
        pytest.skip("no browser on this machine")
    with browse(BROWSER, tmp_path / "profile") as tab:
        tab.open(server.url)
        tab.wait("!document.getElementById('key').hidden && document.activeElement.id === 'secret'")
        tab.type(SECRET)
        tab.press("Enter")
        tab.wait("document.querySelectorAll('.measured').length === 3")
        yield tab


def test_every_part_is_sent_and_names_no_other_place(server: Server) -> None:
    for name in PARTS:
        response = httpx.get(server.url + ("/" if name == "index.html" else f"/page/{name}"))
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["content-security-policy"]
        text = response.text.replace("http://www.w3.org/2000/svg", "")  # the name of a language, which nobody asks for
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text), name
    page = httpx.get(server.url).text
    assert set(re.findall(r"/page/([\w.]+)", page)) <= set(PARTS)
    assert "<script>" not in page


def test_the_front_is_that_of_the_run(server: Server) -> None:
    told = httpx.get(f"{server.url}/front", headers={"authorization": f"Bearer {SECRET}"}).json()
    assert [one["name"] for one in told["objectives"]] == ["kind", "short"]
    assert told["objectives"][0]["phrase"] == "more kind"
    assert [point["weights"] for point in told["front"]["points"]] == [[1, 0], [0.75, 0.25], [0, 1]]
    assert told["front"]["prompts"] == 3
    assert len(told["front"]["base"]) == 2


def test_a_prompt_is_answered_at_the_chosen_weights_by_keys_alone(browser: Browser, policies: Policies) -> None:
    browser.run("document.getElementById('weight-0').focus()")
    for _ in range(10):
        browser.press("ArrowRight")
    assert browser.run(VALUES) == ["0.60", "0.40"]
    browser.run("document.getElementById('tokens').value = 20; document.getElementById('prompt').focus()")
    browser.type("question")
    browser.press("Enter", control=True)
    browser.wait(f"document.querySelectorAll('.answer').length === 1 && {ENDED}")
    expected = policies.fuse("0.6,0.4").generate(["question"], max_new_tokens=20)[0]
    assert browser.run("document.querySelector('.answer .text').textContent") == expected
    assert "kind 0.60 · short 0.40" in browser.run("document.querySelector('.told').textContent")
    assert "20 tokens, cut" in browser.run("document.querySelector('.told').textContent")
    host = browser.run("location.origin")
    assert all(url.startswith(host) for url in browser.requests if url != "about:blank")
    assert [one for one in browser.errors if "401" not in one] == []  # the first look, without a key


def test_escape_stops_an_answer(browser: Browser, server: Server) -> None:
    browser.run("document.getElementById('tokens').value = 1500; document.getElementById('prompt').focus()")
    browser.run("document.querySelectorAll('.measured')[2].dispatchEvent(new MouseEvent('click'))")
    assert browser.run(VALUES) == ["0.00", "1.00"]
    browser.type("bees")
    browser.press("Enter", control=True)
    browser.wait("document.querySelector('.answer .text')?.textContent.length > 3")
    browser.press("Escape")
    browser.wait(ENDED)
    assert "stopped" in browser.run("document.querySelector('.told').textContent")
    end = time.monotonic() + 30
    while httpx.get(f"{server.url}/health").json()["open"]:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_front_marks_the_chosen_weights(browser: Browser) -> None:
    for number, (values, measured) in enumerate(((["1.00", "0.00"], True), (["0.75", "0.25"], True))):
        browser.run(f"document.querySelectorAll('.measured')[{number}].dispatchEvent(new MouseEvent('click'))")
        assert browser.run(VALUES) == values
        at = "['cx', 'cy'].map((name) => document.querySelector('{}').getAttribute(name))"
        chosen = browser.run(at.format("circle.chosen"))
        assert chosen == browser.run(at.format(f".measured:nth-of-type({number + 1})"))
        assert browser.run("document.querySelector('circle.chosen').classList.contains('estimated')") != measured
    browser.run("document.getElementById('weight-0').focus()")
    browser.press("ArrowLeft")
    assert browser.run("document.querySelector('circle.chosen').classList.contains('estimated')")
    assert "estimated between" in browser.run("document.getElementById('front-note').textContent")
