"""Reference log-probabilities: computed once per text and reference model, kept on disk by content hash.

The cache folder is named for the reference (base weights, frozen adapter, dtype); a row is named for its tokens and the
border between prompt and response. So another template, base, dtype or adapter misses the cache instead of misusing it.
A file is named for what it holds, so that a damaged one is known, removed, and its rows are computed anew.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sipo_pl.data.loader import RowKey, row_key
from sipo_pl.engine.logprobs.shared_prompts import shared_prompt_logps
from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.messages.errors import UserError
from sipo_pl.storage.hashes import content_hash
from sipo_pl.storage.json_lines import read_jsonl, write_jsonl
from sipo_pl.text.templates import Encoded

log = logging.getLogger("sipo_pl")

SHARD_BATCHES = 8  # batches that a crash may cost


class Devices(NamedTuple):
    """Devices that compute together.

    Args:
        rank: index of this one
        world_size: how many
        in_step: every forward is common to all of them, as where each holds a part of the weights
        wait: returns when all have called it
    """

    rank: int = 0
    world_size: int = 1
    in_step: bool = False
    wait: Callable[[], None] = lambda: None


class ReferenceCache:
    """Log-probabilities of rows under one reference model.

    Args:
        folder: folder of all reference caches of a run.
        identity: what the reference model is, as a JSON-like value.
        before: the same as an older version told it, whose rows are taken over.
    """

    def __init__(self, folder: Path, identity: object, before: object = None) -> None:
        self.folder = folder / content_hash(identity)[:24]
        self._folders = [folder / content_hash(one)[:24] for one in (identity, before) if one is not None]
        self._known: dict[str, float] = {}
        self._read: set[Path] = set()

    def lookup(self, rows: Iterable[Encoded]) -> dict[RowKey, float]:
        """Return the log-probabilities of those `rows` that are cached."""
        shards = {shard for folder in self._folders for shard in folder.glob("*.jsonl")}
        for shard in sorted(shards - self._read):
            self._known.update((line["row"], line["logp"]) for line in _read_shard(shard))
            self._read.add(shard)
        found = ((row_key(row), self._known.get(content_hash(row_key(row)))) for row in rows)
        return {key: logp for key, logp in found if logp is not None}

    def store(self, rows: Sequence[Encoded], logps: Sequence[float]) -> None:
        """Add rows, atomically."""
        lines = [{"row": content_hash(row_key(row)), "logp": logp} for row, logp in zip(rows, logps, strict=True)]
        shard = self.folder / f"{_name(lines)}.jsonl"
        write_jsonl(shard, lines)
        self._read.discard(shard)  # it may have been there, and damaged


def _name(lines: Sequence[Mapping[str, Any]]) -> str:
    return content_hash(lines)[:24]


def _read_shard(shard: Path) -> list[dict[str, Any]]:
    """Return the lines of a file; none where it is damaged, which is said, and the file removed."""
    try:
        lines = read_jsonl(shard, ["row", "logp"])
        if _name(lines) == shard.stem:
            return lines
        problem = f"{shard}: damaged or edited since it was written"
    except UserError as error:
        problem = str(error)
    log.warning("%s; removed, and its rows are computed anew", problem)
    shard.unlink(missing_ok=True)
    return []


def reference_logps(
    cache: ReferenceCache,
    stack: LoRAStack,
    rows: Sequence[Encoded],
    batch_rows: int,
    on_rows: Callable[[int], None] = lambda count: None,
    devices: Devices = Devices(),  # noqa: B008 (never changed)
) -> None:
    """Compute and store the log-probabilities of all `rows` that the cache does not hold, rows of a prompt together.

    A forward takes the same rows on any number of devices.

    Args:
        cache: where they go.
        stack: one adapter group; its ranks in training are off.
        rows: prompts with responses.
        batch_rows: rows in one forward.
        on_rows: told the number of rows done, for progress.
        devices: which share the forwards out among them.

    Raises:
        UserError: a log-probability that is no number.
    """
    cached = cache.lookup(rows)
    missing = {row_key(row): row for row in rows if row_key(row) not in cached}
    todo = sorted(missing.values(), key=lambda row: (row.input_ids[: row.prompt_length], -row.response_length))
    devices.wait()  # until all know what is missing: what is stored from now on would change it
    batches = [todo[start : start + batch_rows] for start in range(0, len(todo), batch_rows)]
    mine = batches[devices.rank :: devices.world_size]
    forward = GroupedForward([stack.model], [0])

    def compute(batch: Sequence[Encoded]) -> list[float]:
        # weights that are gathered in inference mode could not be trained through
        without_gradients = torch.no_grad() if devices.in_step else torch.inference_mode()
        with without_gradients, stack.reference():
            logps: list[float] = shared_prompt_logps(forward, batch)[0].tolist()
        if wrong := sum(not math.isfinite(logp) for logp in logps):
            raise UserError(
                f"{wrong} of {len(batch)} responses have a log-probability that is no number (nan or -inf) under the "
                "reference: the base model overflows, or never says one of their tokens"
            )
        return logps

    for start in range(0, len(mine), SHARD_BATCHES):
        done: list[float] = []
        shard = mine[start : start + SHARD_BATCHES]
        for batch in shard:
            done += compute(batch)
            on_rows(len(batch))
        cache.store([row for batch in shard for row in batch], done)
    if devices.in_step and len(mine) * devices.world_size < len(batches):
        compute(batches[0])  # the others have one more, in which this one has a part
    devices.wait()
