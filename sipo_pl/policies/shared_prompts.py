"""Log-probabilities of responses that share prompts: each prompt is computed once, for scoring without gradients."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sipo_pl.data.templates import Encoded
from sipo_pl.policies.grouped import GroupedForward, TokenIds
from sipo_pl.policies.segments import Level

LIKE = 0.9  # a response this much shorter than the longest beside it waits for the next forward,
LEAST_TOKENS = {False: 2048, True: 16384}  # if those beside it, in all groups, keep the CPU, or the GPU, busy


def shared_prompt_logps(forward: GroupedForward, rows: Sequence[Encoded]) -> Tensor:
    """Return log pi_k(response | prompt) of every row under every adapter group; `response_logps`, with less work.

    Args:
        forward: the K groups.
        rows: R prompts with responses.

    Returns:
        (K, R), float32.
    """
    texts = [tuple(row.input_ids[: row.prompt_length]) for row in rows]
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    hidden, prompts = forward.read(list(places), [], [0] * len(places))
    ends = hidden[:, torch.arange(len(places)), prompts.lengths - 1]
    responses = [tuple(row.input_ids[row.prompt_length :]) for row in rows]
    logps = torch.empty(forward.groups, len(rows), device=forward.device)
    least = LEAST_TOKENS[forward.device.type == "cuda"] // forward.groups
    for chunk in like_lengths([len(response) for response in responses], least):
        owner = [places[texts[index]] for index in chunk]
        logps[:, chunk] = _behind(forward, prompts, ends, owner, [responses[index] for index in chunk])
    return logps


def like_lengths(lengths: Sequence[int], least: int) -> Iterator[list[int]]:
    """Yield the indices of `lengths` in chunks that are padded little, or else hold fewer than `least`, padded."""
    chunk: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[chunk[0]] if chunk else 0
        if lengths[index] < LIKE * longest and longest * len(chunk) >= least:
            yield chunk
            chunk = []
        chunk.append(index)
    yield chunk


def _behind(
    forward: GroupedForward, prompts: Level, ends: Tensor, owner: Sequence[int], responses: Sequence[TokenIds]
) -> Tensor:
    """Return the log-probabilities of responses, (K, R), behind the prompts that `owner` names."""
    states, ids, which = states_behind(forward, prompts, ends, owner, responses)
    logps = forward.token_logps(states, ids)
    return torch.zeros(forward.groups, len(responses), device=forward.device).index_add(1, which, logps)


def states_behind(
    forward: GroupedForward, prompts: Level, ends: Tensor, owner: Sequence[int], responses: Sequence[TokenIds]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the hidden states that predict the tokens of responses, behind the prompts that `owner` names.

    Args:
        forward: the K groups.
        prompts: what was read of the prompts.
        ends: the states of each prompt's last token, (K, prompts, hidden).
        owner: for each response, its prompt.
        responses: R token sequences, none of them empty.

    Returns:
        The states (K, n, hidden) of the n tokens of all responses, the tokens (n,), and the response of each (n,).
    """
    states = ends[:, list(owner), None]  # the last prompt token predicts the first of the response
    lengths = torch.tensor([len(response) for response in responses], device=forward.device)[:, None]
    longest = int(lengths.max())
    if longest > 1:
        # a lone EOS has no token to be read before it, but a segment is not empty
        read = [response[:-1] or response for response in responses]
        states = torch.cat([states, forward.read(read, [prompts], owner, keep=False)[0]], dim=2)
    real = torch.arange(longest, device=forward.device) < lengths
    ids = torch.tensor([token for response in responses for token in response], device=forward.device)
    which = torch.arange(len(responses), device=forward.device)[:, None].expand_as(real)[real]
    return states[:, real], ids, which
