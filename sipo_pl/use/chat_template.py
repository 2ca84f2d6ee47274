"""The run's prompt template as a chat template of transformers, for tools that know nothing of this program."""

import json
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from sipo_pl.text.chat_rendering import literal, prepend
from sipo_pl.text.prompt import Prompt
from sipo_pl.text.templates import FIELD, PromptTemplate

# for a template that makes nothing of texts
_AS_PARTS = (
    "{% set parted = namespace(messages=[]) %}{% for one in messages %}{% if one['content'] is string %}"
    "{% set parted.messages = parted.messages + "
    "[{'role': one['role'], 'content': [{'type': 'text', 'text': one['content']}]}] %}"
    "{% else %}{% set parted.messages = parted.messages + [one] %}{% endif %}{% endfor %}"
    "{% set messages = parted.messages %}"
)
_ONE = "the policies were trained on single prompts: give one message of the user"


def as_chat_template(template: PromptTemplate) -> str:
    """Return Jinja that renders a single message of the user as `template` does.

    A plain template writes BOS itself where the tokenizer would add it, because tools add nothing to what a chat
    template renders. It refuses conversations, which the policies have never seen under it.
    """
    own = template.template
    if own.kind == "plain":
        start = "{{ bos_token }}" if _adds_bos(template) else ""
        refuse = f"{{% if messages | length != 1 %}}{{{{ raise_exception({json.dumps(_ONE)}) }}}}{{% endif %}}"
        return refuse + start + _around(own.pattern, "messages[0]['content']")
    assert template.chat is not None
    jinja = template.chat.source
    if template.chat.takes_parts:
        jinja = prepend(_AS_PARTS, jinja)
    if own.text is not None and own.text != "{" + FIELD + "}":
        before, _, after = own.pattern.partition("{" + FIELD + "}")
        filled = f"{literal(before)} + messages[0]['content'] + {literal(after)}"
        one = "messages | length == 1 and messages[0]['role'] == 'user'"
        head = f"{{% if {one} %}}{{% set messages = [{{'role': 'user', 'content': {filled}}}] %}}{{% endif %}}"
        jinja = prepend(head, jinja)
    if own.system is not None:
        system = f"[{{'role': 'system', 'content': {literal(own.system)}}}]"
        other = "messages[0]['role'] != 'system'"
        jinja = prepend(f"{{% if {other} %}}{{% set messages = {system} + messages %}}{{% endif %}}", jinja)
    return jinja


def differing(template: PromptTemplate, tokenizer: PreTrainedTokenizerBase, prompts: Iterable[Prompt]) -> int:
    """Return for how many prompts the tokenizer's chat template gives other tokens than the run's template."""
    return sum(_chat_ids(tokenizer, prompt) != template.prompt_ids(prompt) for prompt in prompts)


def _chat_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _adds_bos(template: PromptTemplate) -> bool:
    bos = template.tokenizer.bos_token_id
    return bos is not None and list(template.tokenizer("a")["input_ids"])[:1] == [bos]


def _around(pattern: str, value: str) -> str:
    before, _, after = pattern.partition("{" + FIELD + "}")
    return "".join(f"{{{{ {part} }}}}" for part in (literal(before), value, literal(after)) if part != "''")
