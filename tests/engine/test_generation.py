from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Generated, Request
from sipo_pl.engine.lora.adapters import Factors, read_adapter
from sipo_pl.engine.lora.policies import BASE, GroupPlace, PolicySet
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.loading import load_base
from sipo_pl.interop.pretrained import attention_of
from sipo_pl.messages.errors import UserError
from sipo_pl.method.divergences import Divergence, ReverseKL
from sipo_pl.method.seeds import seed_of

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
NO_EOS = 10_000  # no such token, so that every row runs to its limit
REVERSE = ReverseKL()
GENERATOR = torch.Generator().manual_seed(0)
PROMPTS = [tuple(torch.randint(4, 250, (n,), generator=GENERATOR).tolist()) for n in (5, 12, 3, 12, 8)]


@pytest.fixture(scope="module")
def adapters(adapter_folders: list[Path]) -> list[Factors]:
    return [*(read_adapter(folder).factors for folder in adapter_folders[:2]), BASE]


@pytest.fixture(scope="module")
def policies(lively_model: Path, adapters: list[Factors]) -> PolicySet:
    return over(load_base(str(lively_model), "float32"), adapters)


def over(model: PreTrainedModel, adapters: list[Factors], targets: tuple[str, ...] = ATTENTION) -> PolicySet:
    """Return adapters over one base, the last of which is taken for the reference."""
    stack = LoRAStack(model, targets)
    stack.stack(adapters)
    return PolicySet([stack], [GroupPlace(0, k, reference=len(adapters) - 1) for k in range(len(adapters))])


def requests(*weights: tuple[float, ...]) -> list[Request]:
    return [Request(f"{i}/{w}", prompt, point) for i, prompt in enumerate(PROMPTS) for w, point in enumerate(weights)]


WEIGHTS = ((0.7, 0.3, 0.0), (0.2, 0.8, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.2, 0.3))


def decode(
    policies: PolicySet,
    rows: list[Request],
    eos_id: int | list[int] = NO_EOS,
    seed: int = 0,
    divergence: Divergence = REVERSE,
    **settings: float,
) -> list[Generated]:
    chosen = {"max_new_tokens": 10, **settings}
    return generate(policies, rows, Decoding(**chosen), divergence, eos_id, seed)  # type: ignore[arg-type]


def greedy_by_transformers(model: PreTrainedModel | PeftModel, prompt: tuple[int, ...], count: int = 10) -> list[int]:
    ids = torch.tensor([prompt])
    made = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    return made[0, len(prompt) :].tolist()


# greedy


def test_a_batch_gives_what_each_row_gives_alone(policies: PolicySet) -> None:
    rows = requests(*WEIGHTS)
    together = decode(policies, rows)
    assert together == [decode(policies, [row])[0] for row in rows]
    assert len({tuple(one.token_ids) for one in together}) > len(rows) * 0.8  # texts vary, so that this says something


def test_a_corner_is_the_greedy_text_of_its_policy(
    policies: PolicySet, lively_model: Path, adapter_folders: list[Path]
) -> None:
    base = AutoModelForCausalLM.from_pretrained(lively_model)
    models = [PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(lively_model), adapter_folders[1]), base]
    rows = requests((0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    expected = [greedy_by_transformers(model.eval(), prompt) for prompt in PROMPTS for model in models]
    found = decode(policies, rows, eos_id=base.config.eos_token_id)
    assert [one.token_ids + [2] * (one.finish_reason == "eos") for one in found] == expected
    assert {one.finish_reason for one in found} == {"eos", "length"}


def test_a_policy_fused_with_itself_is_the_policy(lively_model: Path, adapters: list[Factors]) -> None:
    twice = over(load_base(str(lively_model), "float32"), [adapters[0], adapters[0]])
    alone, fused = decode(twice, requests((1.0, 0.0))), decode(twice, requests((0.3, 0.7)))
    assert alone == fused


def test_fusion_chooses_by_the_weighted_sum_of_log_probabilities(
    lively_model: Path, adapter_folders: list[Path], policies: PolicySet
) -> None:
    models = [
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(lively_model), folder).eval()
        for folder in adapter_folders[:2]
    ]
    ids = list(PROMPTS[0])
    with torch.no_grad():
        for _ in range(10):
            logps = [model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1) for model in models]
            ids.append(int((0.7 * logps[0] + 0.3 * logps[1]).argmax()))
    assert decode(policies, requests((0.7, 0.3, 0.0)))[0].token_ids == ids[len(PROMPTS[0]) :]


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("Mistral", {"sliding_window": 6}),
        ("Qwen2", {}),
        ("Gemma2", {"final_logit_softcapping": 3.0, "sliding_window": 6}),
        ("GPTNeoX", {}),
    ],
)
def test_other_families_decode_as_transformers_does(family: str, settings: dict[str, float]) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 256, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    if family == "GPTNeoX":
        heads.pop("num_key_value_heads"), sizes.pop("head_dim")
    config = getattr(transformers, f"{family}Config")(**sizes, **heads, **tokens, **settings)
    model = AutoModelForCausalLM.from_config(config, **attention_of(config)).eval()
    expected = [greedy_by_transformers(model, prompt) for prompt in PROMPTS]
    policies = over(model, [BASE, BASE], ("dense",) if family == "GPTNeoX" else ("q_proj",))
    found = decode(policies, requests((0.5, 0.5)))
    assert [one.token_ids for one in found] == expected


# how responses end


def test_the_end_token_ends_a_response_and_is_not_part_of_it(policies: PolicySet) -> None:
    rows = requests((0.7, 0.3, 0.0))
    whole = decode(policies, rows)
    eos_id = whole[1].token_ids[4]
    for full, found in zip(whole, decode(policies, rows, eos_id=eos_id), strict=True):
        if eos_id in full.token_ids:
            assert found == Generated(full.token_ids[: full.token_ids.index(eos_id)], "eos", eos_id)
        else:
            assert found == full
    assert {full.finish_reason for full in decode(policies, rows, eos_id=eos_id)} == {"eos", "length"}


def test_any_of_several_end_tokens_ends_a_response(policies: PolicySet) -> None:
    rows = requests((0.7, 0.3, 0.0))
    whole = decode(policies, rows)
    ends = [whole[0].token_ids[3], whole[1].token_ids[4], 1]
    found = decode(policies, rows, eos_id=ends)
    for full, one in zip(whole, found, strict=True):
        place = next((i for i, token in enumerate(full.token_ids) if token in ends), None)
        assert one == (full if place is None else Generated(full.token_ids[:place], "eos", full.token_ids[place]))
        assert one.whole == full.token_ids[: len(full.token_ids) if place is None else place + 1]
    assert {one.end_id for one in found} >= set(ends[:2])


def test_a_first_token_that_ends_leaves_an_empty_response(policies: PolicySet) -> None:
    row = requests((1.0, 0.0, 0.0))[0]
    first = decode(policies, [row])[0].token_ids[0]
    assert decode(policies, [row], eos_id=first) == [Generated([], "eos", first)]


def test_the_end_token_in_the_last_place_counts_as_an_end(policies: PolicySet) -> None:
    row = requests((1.0, 0.0, 0.0))[0]
    tokens = decode(policies, [row])[0].token_ids
    place = next(i for i, token in enumerate(tokens) if token not in tokens[:i] and i > 0)
    ended = Generated(tokens[:place], "eos", tokens[place])
    assert decode(policies, [row], eos_id=tokens[place], max_new_tokens=place + 1) == [ended]
    assert decode(policies, [row], eos_id=tokens[place], max_new_tokens=place) == [Generated(tokens[:place], "length")]


def test_max_length_counts_the_prompt(policies: PolicySet) -> None:
    rows = requests((0.5, 0.5, 0.0))
    found = generate(policies, rows, Decoding(max_length=12), REVERSE, NO_EOS, seed=0)
    assert [len(one.token_ids) for one in found] == [12 - len(prompt) for prompt in PROMPTS]  # two are full already
    assert {one.finish_reason for one in found} == {"length"}
    assert [len(one.token_ids) for one in decode(policies, rows, max_length=12, max_new_tokens=2)] == [2, 0, 2, 0, 2]


def test_a_prompt_longer_than_max_length_gives_an_empty_cut_row(policies: PolicySet) -> None:
    rows = requests((0.5, 0.5, 0.0))
    found = decode(policies, rows, max_length=6)
    assert found[1] == found[3] == Generated([], "length")
    assert len(found[2].token_ids) == 3
    assert decode(policies, [rows[1]], max_length=6) == [Generated([], "length")]
    assert decode(policies, []) == []


def test_progress_counts_every_row_and_token_once(policies: PolicySet) -> None:
    told: list[tuple[int, int]] = []
    rows = requests(*WEIGHTS)
    settings = Decoding(max_length=20, batch_rows=7)
    found = generate(policies, rows, settings, REVERSE, NO_EOS, 0, lambda *counts: told.append(counts))
    assert sum(tokens for _, tokens in told) == sum(len(one.token_ids) for one in found)
    assert sum(ended for ended, _ in told) == len(rows)


# sampling


def test_a_sampled_row_depends_on_its_key_and_not_on_its_company(policies: PolicySet) -> None:
    rows = requests(*WEIGHTS)
    settings = {"temperature": 1.5, "top_p": 0.95, "max_length": 30, "max_new_tokens": 15}
    together = decode(policies, rows, **settings)
    for batch_rows in (1, 4):
        assert decode(policies, rows, batch_rows=batch_rows, **settings) == together
    assert decode(policies, rows[::-1], **settings) == together[::-1]
    assert decode(policies, rows[3:9], **settings) == together[3:9]


def test_a_rows_noise_does_not_depend_on_how_long_others_may_get(policies: PolicySet) -> None:
    row, other = requests((0.7, 0.3, 0.0))[1], Request("other", PROMPTS[2], (0.7, 0.3, 0.0))
    settings = {"temperature": 1.5, "max_length": 24, "max_new_tokens": 1000}
    assert decode(policies, [row, other], **settings)[0] == decode(policies, [row], **settings)[0]
    shorter = decode(policies, [row], temperature=1.5, max_new_tokens=6)[0].token_ids
    assert decode(policies, [row], **settings)[0].token_ids[:6] == shorter


def test_samples_differ_by_key_and_by_seed(policies: PolicySet) -> None:
    rows = [Request(f"p/0.5,0.5/{k}", PROMPTS[0], (0.5, 0.5, 0.0)) for k in range(6)]
    first, again, other = (decode(policies, rows, seed=seed, temperature=1.5) for seed in (0, 0, 1))
    assert first == again
    assert len({tuple(one.token_ids) for one in first}) == 6
    assert all(one.token_ids != two.token_ids for one, two in zip(first, other, strict=True))
    assert seed_of(0, "a") != seed_of(0, "b") != seed_of(1, "b")
    assert 0 <= seed_of(7, "x") < 2**63


def test_first_tokens_follow_the_fused_distribution(
    policies: PolicySet, lively_model: Path, adapters: list[Factors]
) -> None:
    rows = [Request(str(k), PROMPTS[0], (0.5, 0.5, 0.0)) for k in range(3000)]
    found = decode(policies, rows, temperature=2.0, max_new_tokens=1, batch_rows=3000)
    counts = torch.bincount(torch.tensor([one.token_ids[0] for one in found]), minlength=260) / len(rows)
    with torch.no_grad(), policies.stacks[0].active([0, 1]):
        logits = policies.stacks[0].model(input_ids=torch.tensor([PROMPTS[0]] * 2)).logits[:, -1]
    expected = (0.5 * logits.log_softmax(-1)).sum(0).div(2.0).softmax(-1)
    assert (counts - expected).abs().sum() / 2 < 0.12  # total variation; the expected one of 3000 draws is below


# settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature: -0.1 is not in"),
        ({"top_p": 0.0}, r"top_p: 0 is not in \(0, 1\]"),
        ({"top_p": 1.1}, "top_p: 1.1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_length": 0}, "max_length"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"batch_rows": 0}, "batch_rows"),
        ({"beams": 0}, "beams: 0 is less than one"),
        ({"beams": 2, "temperature": 0.5}, "beams: 2 beams are not sampled"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=rf"decoding\.{message}"):
        Decoding(**settings)  # type: ignore[arg-type]
