"""The engine's thread: what fails is told, and does not stay broken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from sipo_pl.serve.engine import PATIENCE, Engine
from sipo_pl.serve.errors import ApiError
from sipo_pl.serve.limits import Limits
from sipo_pl.serve.metrics import Metrics
from sipo_pl.serve.work import Work
from sipo_pl.use.api import Policies, load


@pytest.fixture(scope="module")
def policies(endless: Path) -> Policies:
    return load(endless)


def work(policies: Policies) -> Work:
    ids = tuple(policies.template.prompt_ids("hi"))
    return Work(ids, (0.5, 0.5), policies.decoding(max_new_tokens=6))


@asynccontextmanager
async def running(policies: Policies) -> AsyncIterator[Engine]:
    engine = Engine(policies, Limits(slots=2), Metrics())
    engine.start()
    try:
        yield engine
    finally:
        engine.close()


async def answer(engine: Engine, asked: Work) -> str:
    return "".join([piece.text async for piece in engine.submit(asked).pieces()])


def test_a_failure_is_told_and_the_next_answers_are_as_ever(policies: Policies) -> None:
    model = policies.policy_set.stacks[0].model
    head = model.lm_head

    async def scene() -> None:
        async with running(policies) as engine:
            whole = await answer(engine, work(policies))
            model.lm_head = nn.Linear(3, 3)  # of a wrong size
            with pytest.raises(ApiError, match="the engine failed"):
                await answer(engine, work(policies))
            model.lm_head = head
            assert await answer(engine, work(policies)) == whole
            assert engine.answers == {}

    asyncio.run(scene())


def test_an_engine_that_always_fails_gives_up_and_says_so(policies: Policies) -> None:
    model = policies.policy_set.stacks[0].model
    head = model.lm_head

    async def scene() -> None:
        async with running(policies) as engine:
            model.lm_head = nn.Linear(3, 3)
            for _ in range(PATIENCE):
                with pytest.raises(ApiError, match="the engine failed"):
                    await answer(engine, work(policies))
            model.lm_head = head
            with pytest.raises(ApiError, match="the engine has failed") as told:
                engine.submit(work(policies))
            assert told.value.status == 503

    asyncio.run(scene())


def test_what_a_stream_refuses_is_told_to_its_request_alone(policies: Policies) -> None:
    async def scene() -> None:
        async with running(policies) as engine:
            wrong = replace(work(policies), decoding=policies.decoding(max_length=5))
            results = await asyncio.gather(
                answer(engine, work(policies)), answer(engine, wrong), return_exceptions=True
            )
            assert isinstance(results[0], str)
            assert isinstance(results[1], ApiError)
            assert "nothing is left for an answer" in results[1].message

    asyncio.run(scene())
