"""The Python of the model cards, which needs transformers and peft alone."""

import textwrap

from sipo_pl.method.divergences import ReverseKL
from sipo_pl.use.divergence_class import class_path_of, is_shipped
from sipo_pl.use.source import Source

_LOAD = {
    "merged": """\
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        folder = "."  # this folder
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
        """,
    "adapter": """\
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        base, folder = "{base}", "."  # this folder
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
        """,
}
_ANSWER = """\
    settings = GenerationConfig.from_pretrained(folder)

    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    answer = model.generate(**inputs, generation_config=settings)
    print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    """
_FUSE = """\
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base, folder, weights = "{base}", ".", {weights}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    first, *others = weights
    model = AutoModelForCausalLM.from_pretrained(base)
    model = PeftModel.from_pretrained(model, f"{{folder}}/policies/{{first}}", adapter_name=first)
    for name in others:
        model.load_adapter(f"{{folder}}/policies/{{name}}", adapter_name=name)

    messages = [{{"role": "user", "content": "Why is the sky blue?"}}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    with torch.inference_mode():
        for _ in range({most}):
            fused = 0
            for name, weight in weights.items():
                model.set_adapter(name)
                fused = fused + weight * model(input_ids=ids).logits[0, -1].float().log_softmax(-1)
            token = int(fused.argmax())
            if token in {ends}:
                break
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    print(tokenizer.decode(ids[0, start:], skip_special_tokens=True))
    """
_CHAT = "Fused while decoding, all policies in one forward, with sipo_pl:"
_SLOW = "Or with peft alone, a policy at a time and without a cache, to show what fusion is:"
MOST_TOKENS = 64


def code(kind: str, source: Source, weights: tuple[float, ...], base: str, end_ids: list[int]) -> list[str]:
    """Return the parts of a card that say how to use its folder.

    Args:
        kind: of the folder.
        source: the policies.
        weights: one for each.
        base: what the base model is called.
        end_ids: tokens of which any ends an answer.
    """
    if kind != "policies":
        load = _LOAD["merged" if kind == "merged" else "adapter"]
        return [_python(load).replace("{base}", base).removesuffix("```") + _body(_ANSWER) + "```"]
    at = ",".join(f"{name}={weight:g}" for name, weight in zip(source.names, weights, strict=True))
    command = f"sipo_pl chat --model . --weights {at}"
    if not is_shipped(rule := class_path_of(source.divergence)):
        command += f" --divergence {rule}"
    parts = [_CHAT, f"    {command}"]
    if isinstance(source.divergence, ReverseKL) and len(source.base_models) == 1:
        by_name = dict(zip(source.names, weights, strict=True))
        parts += [_SLOW, _python(_FUSE.format(base=base, weights=by_name, most=MOST_TOKENS, ends=end_ids))]
    return parts


def _body(text: str) -> str:
    return textwrap.dedent(text)


def _python(text: str) -> str:
    return f"```python\n{_body(text)}```"
