"""What a request's time, the queue and a client's going count while prompts are made, and what a server's end does."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from malformed import CHAT, COMPLETIONS, valid
from serving import serve_here, write_policies
from tiny import CHAT_TEMPLATE, make_tiny_model, make_tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sipo_pl.recipe.recipe import Template
from sipo_pl.serve.limits import Limits
from sipo_pl.serve.prompts import characters_of_a_token
from sipo_pl.serve.shortest_first import ShortestFirst
from sipo_pl.text.templates import PromptTemplate

LOOPS = "{% for i in range(N) %}{% for j in range(1000) %}{% endfor %}{% endfor %}"
SLOW = "{% if messages[-1]['content'] == 'slow' %}" + LOOPS + "{% endif %}"
SECONDS = 1.2  # that the slow template takes, about, on this machine
SLOWLY: dict[str, Any] = {"messages": [{"role": "user", "content": "slow"}]}
TOKENS = len("<user\nslow>\n<assistant\n")  # of the prompt, whose marks are one token each


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of policies whose chat template takes seconds for one prompt."""
    folder = tmp_path_factory.mktemp("slow")
    tokenizer = make_tiny_tokenizer(chat_template=CHAT_TEMPLATE + SLOW.replace("N", "1000"))
    begun = time.thread_time()  # which a busy machine does not lengthen
    tokenizer.apply_chat_template(SLOWLY["messages"], tokenize=False)
    rounds = int(1000 * SECONDS / (time.thread_time() - begun))
    base = make_tiny_model(folder / "model", chat_template=CHAT_TEMPLATE + SLOW.replace("N", str(rounds)))
    return write_policies(folder / "talk", base, ("kind", "short"), Template("chat"), spread=0.1)


@pytest.fixture(scope="module")
def url(slow: Path) -> Iterator[str]:
    with serve_here(slow, Limits(slots=1, queue=2, timeout=SECONDS / 2)) as found:
        yield found


def count(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def wait_for(url: str, open_ones: int) -> None:
    end = time.monotonic() + 30
    while httpx.get(f"{url}/health").json()["open"] != open_ones:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_prompt_that_takes_too_long_is_a_request_that_does(url: str) -> None:
    answer = httpx.post(url + CHAT, json=valid("talk", **SLOWLY), timeout=60)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "timeout"


def test_requests_whose_prompts_wait_are_in_the_queue(url: str) -> None:
    async def ask() -> list[int]:
        async with httpx.AsyncClient(timeout=60) as client:
            found = await asyncio.gather(*(client.post(url + CHAT, json=valid("talk", **SLOWLY)) for _ in range(5)))
            return sorted(one.status_code for one in found)

    assert asyncio.run(ask()) == [429, 429, 504, 504, 504]


def test_a_client_that_goes_while_its_prompt_waits_is_not_served(slow: Path) -> None:
    async def leave(url: str) -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            asked = [asyncio.create_task(client.post(url + CHAT, json=valid("talk", **SLOWLY))) for _ in range(3)]
            await asyncio.to_thread(wait_for, url, 3)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    with serve_here(slow, Limits(slots=1, queue=2)) as url:
        asyncio.run(leave(url))
        wait_for(url, 0)
        assert count(url, 'sipo_pl_answers_total{reason="cancelled"}') == 3
        assert count(url, "sipo_pl_prompt_tokens_total") < 2 * TOKENS  # that of the first alone may have been made


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_text_that_cannot_be_short_enough_is_refused_before_its_tokens_are_made(endless: Path, path: str) -> None:
    long = "long " * 200_000
    body = valid("talk") | ({"messages": [{"role": "user", "content": long}]} if path == CHAT else {"prompt": long})
    if path == COMPLETIONS:
        del body["messages"]
    with serve_here(endless, Limits()) as url:
        refused = httpx.post(url + path, json=body)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        assert "1000000 characters are more than the 2046 tokens" in refused.json()["error"]["message"]
        assert httpx.post(url + path, json=body | {"max_tokens": 2048}).json()["error"]["param"] == "max_tokens"


def test_the_characters_of_a_token_are_known_where_they_are_bounded() -> None:
    def template(model: models.Model, *added: object) -> PromptTemplate:
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
        return PromptTemplate(fast, Template())

    bytes_alone = PromptTemplate(make_tiny_tokenizer(), Template())
    assert characters_of_a_token(bytes_alone) == len("<unk>")
    words = template(models.WordLevel({"<unk>": 0, "</s>": 1, "word": 2}, unk_token="<unk>"))
    assert len(words.text_ids("x" * 10_000)) == 1  # an unknown word of any length is one token
    assert characters_of_a_token(words) is None


def test_the_shortest_job_is_next_and_a_cancelled_one_is_not_done() -> None:
    thread, done, go = ShortestFirst("test"), [], threading.Event()
    first = thread.submit(1, go.wait)
    jobs = [thread.submit(length, lambda length=length: done.append(length)) for length in (30, 10, 20, 10)]
    jobs[2].cancel()
    go.set()
    assert first.result(timeout=10)
    jobs[0].result(timeout=10)
    assert done == [10, 10, 30]
    failed = thread.submit(1, lambda: json.loads("{"))
    with pytest.raises(ValueError, match="Expecting"):
        failed.result(timeout=10)
    thread.close()


def test_a_server_that_ends_tells_those_who_wait(slow: Path, endless: Path, capfd: pytest.CaptureFixture[str]) -> None:
    answers: list[httpx.Response] = []

    def ask(url: str, path: str) -> None:
        answers.append(httpx.post(url + path, json=valid("talk", max_tokens=1900, **SLOWLY), timeout=60))

    # the prompts of the first wait for a thread, those of the second are decoded or wait for a slot
    for folder in (slow, endless):
        with serve_here(folder, Limits(slots=1, queue=9, grace=0)) as url:
            threads = [threading.Thread(target=ask, args=(url, CHAT)) for _ in range(3)]
            for thread in threads:
                thread.start()
            wait_for(url, 3)
        for thread in threads:
            thread.join(30)
    assert len(answers) == 6
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "stopping"
    assert "Traceback" not in capfd.readouterr().err
