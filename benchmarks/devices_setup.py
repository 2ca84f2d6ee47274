"""What `devices.py` runs on: a random model that ends its texts, made-up pairs, and the configs of a recipe."""

import itertools
import json
import math
import random
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.models import Setting, load_model
from sipo_pl.text.prompts.files import SHIPPED

OBJECTIVES = ("broad", "narrow")
WEIGHTS = ("0.7,0.3", "0.3,0.7")
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
SYLLABLES = [a + b for a in "bcdfghjklmnprstvwz" for b in ("a", "e", "i", "o", "u", "ar", "en", "il", "os", "un")]
ALWAYS_ON = 5.0  # value of the hidden unit that speaks for the end of a text
LIKELIER = 0.7  # share of a response's words that are of the half that its side prefers


def make_model(folder: Path, setting: Setting, mean_length: int) -> None:
    """Write a random model, whose texts have so many tokens on average, and a tokenizer with as many tokens as it."""
    torch.manual_seed(0)
    model = load_model(setting)
    tokenizer = make_tokenizer(model.config.vocab_size)
    _let_end(model, tokenizer.eos_token_id, mean_length)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()  # the commands that are measured have the GPU to themselves


@torch.no_grad()
def _let_end(model: PreTrainedModel, eos_id: int, mean_length: int) -> None:
    """Give each token the same chance of being the last one, by a hidden unit that nothing reads or changes but this.

    A random model would end a text once in as many tokens as its vocabulary has.
    """
    model.get_input_embeddings().weight[:, 0] = ALWAYS_ON
    for layer in model.model.layers:
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            linear.weight[0] = 0.0
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight[0] = 0.0
    head = model.get_output_embeddings().weight
    head[:, 0] = 0.0
    head[eos_id] = 0.0
    ids = torch.randint(len(SPECIAL), model.config.vocab_size, (1, 256), device=model.device)
    hidden = model.model(input_ids=ids).last_hidden_state.float()
    others = (hidden @ head.float().T).logsumexp(-1).mean()
    head[eos_id, 0] = (others - math.log(mean_length)) / hidden[..., 0].mean()


def make_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of so many tokens, of made-up words and of the shipped prompts' words."""
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    bytes_alone = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=bytes_alone, show_progress=False
    )
    prompts = [file.read_text(encoding="utf-8") for file in sorted(SHIPPED.glob("*.txt"))]
    tokenizer.train_from_iterator([*prompts, *(f" {word} {word}" for word in words(2 * size))], trainer)
    bos = (SPECIAL[1], tokenizer.token_to_id(SPECIAL[1]))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos[0]} $A", pair=f"{bos[0]} $A {bos[0]} $B", special_tokens=[bos]
    )
    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def words(count: int) -> list[str]:
    """Return made-up words."""
    return ["".join(parts) for parts in itertools.islice(itertools.product(SYLLABLES, repeat=3), 7, 7 + 7 * count, 7)]


def write_recipe(folder: Path, args: Namespace, dtype: str) -> Path:
    """Write raw data and the configs of a recipe into `folder`; return its `recipe.yaml`.

    Args:
        folder: holds the model, in `model`; its runs go to other folders of it.
        args: sizes, see `devices.py`.
        dtype: of the base model.
    """
    rng = random.Random(0)
    pool = words(2000)
    for split, pairs in (("train", args.pairs), ("validation", args.step_pairs), ("test", 4)):
        rows = [row for index in range(pairs) for row in _pair(f"{split} {index}", pool, args, rng)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = {
        "name": "devices",
        "base_model": str(folder / "model"),
        "objectives": [{"name": name, "phrase": f"more {name}"} for name in OBJECTIVES],
        "data": {
            **{split: [str(folder / f"{split}.jsonl")] for split in ("train", "validation", "test")},
            "max_length": 1024,
        },
        "sample_weights": {"points": list(WEIGHTS)},
        "dtype": dtype,
        "reproducible": True,
        "compat": {"keep_marked": True},  # else how many are reviewed would depend on what random texts look like
    }
    configs = {"recipe": recipe, **_stages(args)}
    for name, config in configs.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return folder / "recipe.yaml"


def _pair(name: str, pool: Sequence[str], args: Namespace, rng: random.Random) -> Iterable[dict[str, Any]]:
    """Return two responses to a prompt, of which each objective prefers another one, for the words that it has."""
    prompt = f"{name}: {' '.join(rng.choices(pool, k=args.prompt_words))}"
    half = len(pool) // 2
    for index, (likely, other) in enumerate(((pool[:half], pool[half:]), (pool[half:], pool[:half]))):
        count = rng.randint(*args.response_words)
        text = " ".join(rng.choice(likely if rng.random() < LIKELIER else other) for _ in range(count))
        scores = {objective: int(index == number) for number, objective in enumerate(OBJECTIVES)}
        yield {"prompt": prompt, "response": text, **scores}


def _stages(args: Namespace) -> dict[str, dict[str, Any]]:
    trainer = {"accelerator": "cpu" if args.device == "cpu" else "gpu", "devices": 1}
    decoding = {"temperature": 1.0, "max_length": 4096, "max_new_tokens": args.tokens, "batch_rows": args.unit_rows}
    each = args.unit_rows // (len(WEIGHTS) * args.unit_prompts)
    generate: dict[str, Any] = {"model": {"decoding": decoding}, "trainer": trainer}
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": args.rate}}
    align = {
        "model": {
            "lora": {"r": args.rank, "alpha": args.rank},
            "optimizer": optimizer,
            "reference_batch_rows": 64,
            "forwards": {"batch_tokens": args.batch_tokens},
        },
        # a step is one micro-batch, so that what is logged of it is the mean over all its pairs
        "data": {"micro_batch_size": args.step_pairs, "eval_batch_size": args.step_pairs, "max_length": 1024},
        "saving": {"keep": "last", "validations": 1, "save_every": 10**6},
        "trainer": {**trainer, "max_epochs": args.epochs, "gradient_clip_val": 1.0, "log_every_n_steps": 1},
    }
    rows = {"max_rows": args.units * args.unit_prompts, "samples_per_weight": each}
    stages: dict[str, dict[str, Any]] = {
        "prepare": {},
        "align": align,
        "sample": {**generate, "model": {**generate["model"], **rows}, "data": {"unit_prompts": args.unit_prompts}},
        "review": generate,
        "rewrite": generate,
        "score": {"model": {"batch_tokens": args.score_tokens}, "trainer": trainer},
    }
    return {name: {"stage": name, "recipe": "recipe.yaml", **config} for name, config in stages.items()}
