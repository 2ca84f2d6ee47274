"""The interface as the official client sees it: every answer is the one that Python gets, whatever the company."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from serving import Server, serve

from sipo_pl.text.prompt import Prompt
from sipo_pl.use.api import Policies, load

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
POINTS = ("0.7,0.3", "0.2,0.8", "1,0", "0,1", "kind=0.5,short=0.5")
TOKENS = 14
PROMPT = "question"  # has long answers at all points
LONG: dict[str, Any] = {"model": "talk@0,1", "max_tokens": 1500}  # and this one takes seconds, for which nobody waits
ENDLESS: Any = [{"role": "user", "content": "bees"}]


@pytest.fixture(scope="module")
def server(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("interface") / "log"
    with serve(served, log, "--weights", "0.6,0.4", "--slots", 6, "--max_new_tokens", TOKENS) as running:
        yield running
        said = log.read_text()
        assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def policies(served: Path) -> Policies:
    return load(served)


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.api, api_key="any", max_retries=0) as made:
        yield made


def chat(client: OpenAI, user: str = PROMPT, model: str = "talk", **settings: Any) -> Any:
    messages: Any = [{"role": "user", "content": user}]
    return client.chat.completions.create(model=model, messages=messages, **settings)


def expected(policies: Policies, prompt: Prompt, weights: str, tokens: int = TOKENS, **settings: Any) -> str:
    return policies.fuse(weights).generate([prompt], max_new_tokens=tokens, **settings)[0]


def counted(server: Server) -> dict[str, float]:
    text = httpx.get(f"{server.url}/metrics").text
    return {name: float(value) for name, value in re.findall(r"^(sipo_pl_\S+) (\S+)$", text, re.MULTILINE)}


def wait(server: Server, reached: Callable[[dict[str, float]], bool]) -> None:
    """Wait until the server's counts are as they should be."""
    end = time.monotonic() + 30
    while not reached(found := counted(server)):
        assert time.monotonic() < end, found
        time.sleep(0.05)


def idle(found: dict[str, float]) -> bool:
    return found["sipo_pl_running"] == found["sipo_pl_waiting"] == 0


def cancelled(found: dict[str, float]) -> float:
    return found.get('sipo_pl_answers_total{reason="cancelled"}', 0.0)


def test_the_page_of_the_documents_runs_as_printed(
    server: Server, policies: Policies, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks[0].strip().splitlines()) <= 6
    program = "".join(blocks).replace("http://127.0.0.1:8000/v1", server.api).replace("quickstart", "talk")
    program = program.replace("detail", "kind").replace("ease", "short")
    exec(compile(program, str(PAGE), "exec"), {})
    said = capsys.readouterr().out
    for point in ("0.7,0.3", "1,0", "0.5,0.5", "0.2,0.8"):
        assert expected(policies, "Why is the sky blue?", point) in said


def test_an_answer_is_that_of_python_at_its_weights(client: OpenAI, policies: Policies) -> None:
    texts = [expected(policies, PROMPT, point) for point in POINTS]
    assert len(set(texts)) > 2
    assert [chat(client, model=f"talk@{point}").choices[0].message.content for point in POINTS] == texts
    forms: list[Any] = [POINTS[0], [0.7, 0.3], {"short": 0.3, "kind": 0.7}]
    for form in forms:
        answer = chat(client, extra_body={"weights": form})
        assert answer.choices[0].message.content == texts[0]
        assert answer.model == "talk@0.7,0.3"
        assert answer.weights == {"kind": 0.7, "short": 0.3}
        assert answer.usage.completion_tokens <= TOKENS
        assert answer.usage.prompt_tokens == len(policies.template.prompt_ids(PROMPT))
    assert chat(client).choices[0].message.content == expected(policies, PROMPT, "0.6,0.4")  # those of the server


def test_a_stream_is_the_answer_in_pieces(client: OpenAI, policies: Policies) -> None:
    chunks = list(chat(client, model="talk@0.2,0.8", stream=True, stream_options={"include_usage": True}))
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices]
    assert "".join(pieces) == expected(policies, PROMPT, "0.2,0.8")
    assert len(pieces) > 5
    assert chunks[-2].choices[0].finish_reason == chat(client, model="talk@0.2,0.8").choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == chat(client, model="talk@0.2,0.8").usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_conversation_is_put_as_the_template_puts_it(client: OpenAI, policies: Policies) -> None:
    messages: Any = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "on"}, {"type": "text", "text": "e"}]},
        {"role": "assistant", "content": "1", "refusal": None},
        {"role": "user", "content": "two"},
    ]
    answer = client.chat.completions.create(model="talk@1,0", messages=messages)
    prompt = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Q: one"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Q: two"},
    ]
    assert answer.choices[0].message.content == expected(policies, prompt, "1,0")


def test_completions_continue_a_text_as_it_is(client: OpenAI, policies: Policies) -> None:
    ids = policies.template.text_ids("once upon")
    forms: list[Any] = ["once upon", ["once upon"], ids]
    texts = [client.completions.create(model="talk@0,1", prompt=form).choices[0].text for form in forms]
    chunks = client.completions.create(model="talk@0,1", prompt="once upon", stream=True)
    texts.append("".join(choice.text for chunk in chunks for choice in chunk.choices))
    assert len(set(texts)) == 1
    assert ids[0] == policies.template.tokenizer.bos_token_id
    assert texts[0] != expected(policies, "once upon", "0,1")


def test_a_seed_draws_what_python_draws(client: OpenAI, policies: Policies) -> None:
    def drawn(**settings: Any) -> str:
        found: str = chat(client, temperature=1.3, top_p=0.9, **settings).choices[0].message.content
        return found

    first, second = (expected(policies, PROMPT, "0.6,0.4", temperature=1.3, top_p=0.9, seed=seed) for seed in (5, 6))
    assert first != second
    assert [drawn(seed=5), drawn(seed=6), drawn(seed=5)] == [first, second, first]
    assert drawn() != drawn()


def test_stop_texts_end_an_answer_and_are_no_part_of_it(client: OpenAI, policies: Policies) -> None:
    whole = expected(policies, PROMPT, "0.6,0.4")
    stop = whole[4:6]
    answer = chat(client, stop=[stop, "no such text"]).choices[0]
    assert (answer.message.content, answer.finish_reason) == (whole[: whole.index(stop)], "stop")
    pieces = [choice.delta.content for chunk in chat(client, stop=stop, stream=True) for choice in chunk.choices]
    assert "".join(pieces) == answer.message.content


def test_many_at_once_each_get_their_own_answer(server: Server, policies: Policies) -> None:
    asked = [(f"question {index}", POINTS[index % 5], 3 + 5 * (index % 7)) for index in range(24)]

    async def one(client: AsyncOpenAI, user: str, point: str, tokens: int) -> str:
        messages: Any = [{"role": "user", "content": user}]
        found = await client.chat.completions.create(model=f"talk@{point}", messages=messages, max_tokens=tokens)
        return found.choices[0].message.content or ""

    async def all_of_them() -> list[str]:
        async with AsyncOpenAI(base_url=server.api, api_key="any", max_retries=0) as client:
            return await asyncio.gather(*(one(client, *words) for words in asked))

    texts = [expected(policies, user, point, tokens) for user, point, tokens in asked]
    assert asyncio.run(all_of_them()) == texts
    assert len(set(texts)) == 24


def test_a_stream_that_is_closed_frees_its_slot(client: OpenAI, server: Server) -> None:
    before = cancelled(counted(server))
    for pieces in (1, 3):
        stream = client.chat.completions.create(messages=ENDLESS, stream=True, **LONG)
        for _ in range(pieces):
            next(stream)
        stream.close()
    wait(server, lambda found: idle(found) and cancelled(found) == before + 2)


def test_clients_that_go_away_free_their_slots(server: Server) -> None:
    before = cancelled(counted(server))

    async def leave(count: int) -> None:
        async with AsyncOpenAI(base_url=server.api, api_key="any", max_retries=0) as client:
            ask = client.chat.completions.create
            asked = [asyncio.create_task(ask(messages=ENDLESS, **LONG)) for _ in range(count)]
            await asyncio.to_thread(wait, server, lambda found: found["sipo_pl_running"] == 6)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    asyncio.run(leave(9))  # six are decoded, three wait
    wait(server, lambda found: idle(found) and cancelled(found) == before + 9)


def test_models_are_the_run_and_its_measured_weights(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["talk", "talk@1,0", "talk@0.75,0.25", "talk@0,1"]
    assert client.models.retrieve("talk@0.3,0.7").weights == {"kind": 0.3, "short": 0.7}  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError, match=r"no model 'other'; served are talk and talk@0.6,0.4"):
        client.models.retrieve("other")


def test_errors_are_those_of_the_official_client(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="did you mean 'weights'") as wrong:
        chat(client, extra_body={"weigths": "1,0"})
    assert wrong.value.param == "weigths"
    with pytest.raises(openai.BadRequestError, match=r"prompt and answer together may have 2048") as long:
        chat(client, "x" * 3000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="n: not supported"):
        chat(client, n=3)


def test_metrics_and_health_tell_of_it(server: Server, client: OpenAI) -> None:
    wait(server, idle)
    before = counted(server)
    answer = chat(client)
    after = counted(server)

    def more(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert more("sipo_pl_completion_tokens_total") == answer.usage.completion_tokens
    assert more("sipo_pl_prompt_tokens_total") == answer.usage.prompt_tokens
    assert more('sipo_pl_requests_total{route="/v1/chat/completions",status="200"}') == 1
    assert more("sipo_pl_first_token_seconds_count") == 1
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok", "running": 0, "open": 0}
