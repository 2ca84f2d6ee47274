import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import CHAT_TEMPLATE, make_tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Template
from sipo_pl.text.chat_rendering import ChatTemplate
from sipo_pl.text.templates import PromptTemplate, common_prefix_length
from sipo_pl.use.chat_template import as_chat_template, differing

CORPUS = [
    "BEGINNING OF CONVERSATION: USER: What is the capital of France? ASSISTANT: The capital of France is Paris.",
    "BEGINNING OF CONVERSATION: USER: How do I boil an egg? ASSISTANT: Put it into boiling water for ten minutes.",
    "question: answer: nation nations assistant assistants user users word wording :) :D ::",
] * 3
SPECIAL = ["<unk>", "<s>", "</s>", "<|end|>"]
TEXTS = [
    "Paris.",
    " Paris.",
    "  two blanks before",
    "",
    " ",
    "s",
    "\n\nThe capital\tof  France \n",
    "👍🏽 done 👨‍👩‍👧",
    "שלום عالم",
    "日本語",
    ":) and on",
    "ends with a blank ",
]
PROMPTS = ["What is the capital of France?", "", "👍 מה? ", "USER: x ASSISTANT: y"]


def byte_level(**post: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with merges, as GPT-2 and its kin have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return finished(tokenizer, **post)


def metaspace(**post: bool) -> PreTrainedTokenizerFast:
    """A BPE tokenizer with U+2581 for blanks and bytes for what it does not know, as Llama 2 has."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL))
    trained = json.loads(tokenizer.to_str())["model"]
    vocabulary = {**trained["vocab"]}
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    merges = [tuple(merge) for merge in trained["merges"]]
    tokenizer.model = models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>")
    return finished(tokenizer, **post)


def finished(tokenizer: Tokenizer, bos: bool = True, eos: bool = False) -> PreTrainedTokenizerFast:
    pieces = f"{'<s> ' * bos}$A{' </s>' * eos}"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=pieces, special_tokens=[("<s>", 1), ("</s>", 2)] if bos or eos else []
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


TOKENIZERS = {
    "byte level": byte_level(),
    "byte level without bos": byte_level(bos=False),
    "byte level with eos": byte_level(eos=True),
    "metaspace": metaspace(),
    "metaspace without bos": metaspace(bos=False),
    "metaspace with eos": metaspace(eos=True),
}
named = pytest.mark.parametrize("name", TOKENIZERS)
END = "{{ '<|end|>' }}"
CHATS = {
    # BOS in the text; the end mark is the tokenizer's EOS
    "bos in the text": (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}",
        2,
    ),
    "another end mark": (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}",
        3,
    ),
    "a prompt that begins a thought": (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]<think>\n{% endif %}",
        3,
    ),
    "a blank around the answer": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] | trim }} {{ eos_token }}{% endif %}{% endfor %}",
        2,
    ),
    "no end mark": (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
        2,
    ),
}


def plain(name: str, text: str | None = None) -> PromptTemplate:
    return PromptTemplate(TOKENIZERS[name], Template() if text is None else Template(text=text))


def chat(chat_template: str, system: str | None = None, **tokens: object) -> PromptTemplate:
    tokenizer = byte_level()
    tokenizer.chat_template = chat_template
    return PromptTemplate(tokenizer, Template(kind="chat", system=system))


def check(template: PromptTemplate, prompt: str, response: str, bos: bool) -> None:
    encoded, alone = template.encode(prompt, response), template.prompt_ids(prompt)
    ids = encoded.input_ids
    assert ids.count(1) == (1 if bos else 0)
    if bos:
        assert ids[0] == alone[0] == 1
    assert ids[-1] == template.eos_id
    assert ids.count(template.eos_id) == 1
    assert ids[: encoded.prompt_length] == alone[: encoded.prompt_length]
    assert encoded.response_length == len(ids) - encoded.prompt_length >= 1
    if not response:
        assert encoded.input_ids == [*alone, template.eos_id]
        assert encoded.response_length == 1


# one string, BOS once, EOS once


@named
@pytest.mark.parametrize("response", TEXTS)
def test_bos_once_eos_once_prompt_in_front(name: str, response: str) -> None:
    template = plain(name)
    assert template.eos_id == 2
    for prompt in PROMPTS:
        check(template, prompt, response, bos="without bos" not in name)


def test_rows_that_do_not_end_are_told() -> None:
    template = plain("byte level")
    whole = template.encode("What?", "This.")
    template.check_ends([("a", whole)])
    cut = whole._replace(input_ids=whole.input_ids[:-1])
    with pytest.raises(UserError, match=r"^2 training rows do not end in EOS, token 2: b first$"):
        template.check_ends([("a", whole), ("b", cut), ("c", cut)])


@pytest.mark.parametrize("name", ["byte level", "metaspace"])
@given(prompt=st.text(st.characters(exclude_categories=["Cs"])), response=st.text("aon:) s\n▁é👍", max_size=12))
def test_any_text_is_tokenised_as_one_string(name: str, prompt: str, response: str) -> None:
    template, tokenizer = plain(name), TOKENIZERS[name]
    rendered = template.render(prompt)
    encoded = template.encode(prompt, response)
    assert encoded.input_ids == [*tokenizer(rendered + response)["input_ids"], 2]
    assert encoded.prompt_length == common_prefix_length(tokenizer(rendered)["input_ids"], encoded.input_ids)


@pytest.mark.parametrize("name", ["byte level", "metaspace"])
def test_a_token_that_merges_prompt_and_response_belongs_to_the_response(name: str) -> None:
    template = plain(name, "word{raw_prompt}")
    alone, encoded = template.prompt_ids(" nation"), template.encode(" nation", "s")
    assert encoded.input_ids[: len(alone)] != alone  # they did merge
    assert encoded.prompt_length == len(alone) - 1
    assert template.decode(encoded.input_ids[encoded.prompt_length : -1]) == " nations"


def test_the_prompt_may_hold_the_template_and_its_field() -> None:
    template = plain("byte level")
    assert template.render("{raw_prompt} ASSISTANT:") == (
        "BEGINNING OF CONVERSATION: USER: {raw_prompt} ASSISTANT: ASSISTANT:"
    )


def test_the_start_of_an_answer_is_part_of_what_is_continued() -> None:
    template = plain("metaspace")
    ids = template.continuation_ids("How?", " Put it")
    assert ids == TOKENIZERS["metaspace"](template.render("How?") + " Put it")["input_ids"]


# back to text


@named
@pytest.mark.parametrize("response", TEXTS)
def test_a_response_is_decoded_as_it_was(name: str, response: str) -> None:
    template = plain(name)
    encoded = template.encode("What?", response)
    generated = encoded.input_ids[encoded.prompt_length : -1]
    assert template.decode(generated) == response


@named
def test_a_decoded_response_is_encoded_to_the_same_tokens(name: str) -> None:
    template = plain(name)
    for response in TEXTS:
        encoded = template.encode("What?", response)
        text = template.decode(encoded.input_ids[encoded.prompt_length : -1])
        assert template.encode("What?", text) == encoded


@named
def test_special_tokens_are_no_text(name: str) -> None:
    template = plain(name)
    ids = TOKENIZERS[name](" Paris.", add_special_tokens=False)["input_ids"]
    assert template.decode([*ids, 1, 3]) == template.decode(ids)


# chat templates


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("response", TEXTS)
def test_chat_templates_end_with_their_own_mark(name: str, response: str) -> None:
    text, end = CHATS[name]
    template = chat(text)
    assert template.eos_id == end
    for prompt in PROMPTS:
        encoded, alone = template.encode(prompt, response), template.prompt_ids(prompt)
        assert encoded.input_ids[-1] == end
        assert encoded.input_ids.count(1) == ("bos_token" in text)
        response_part = encoded.input_ids[encoded.prompt_length :]
        assert response_part.count(end) == 1
        if not response:
            assert encoded.input_ids == [*alone, end]


def test_an_end_mark_that_no_attribute_names_is_found() -> None:
    tokenizer = make_tiny_tokenizer(chat_template=CHATS["another end mark"][0])
    tokenizer.add_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    template = PromptTemplate(tokenizer, Template(kind="chat"))
    assert template.eos_id == tokenizer.convert_tokens_to_ids("<|end|>") != tokenizer.eos_token_id


def test_bos_of_text_and_of_tokenizer_is_one() -> None:
    tokenizer = byte_level(bos=True)
    template = PromptTemplate(tokenizer, Template(text="<s>USER: {raw_prompt} ASSISTANT:"))
    assert template.encode("x", "y").input_ids.count(1) == 1


def test_messages_and_system_are_rendered() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    tokenizer = make_tiny_tokenizer(chat_template=CHAT_TEMPLATE)
    template = PromptTemplate(tokenizer, Template(kind="chat", system="be brief"))
    assert template.render(messages) == (
        "<s>system\nbe brief</s>\n<s>user\na</s>\n<s>assistant\nb</s>\n<s>user\nc</s>\n<s>assistant\n"
    )
    own = [{"role": "system", "content": "be long"}, *messages]
    assert "be brief" not in template.render(own)
    assert template.render("c") == "<s>system\nbe brief</s>\n<s>user\nc</s>\n<s>assistant\n"


# what is refused


def test_a_tokenizer_without_eos_is_refused() -> None:
    with pytest.raises(UserError, match="no EOS token"):
        PromptTemplate(make_tiny_tokenizer(eos=False), Template())


def test_a_tokenizer_without_chat_template_is_refused() -> None:
    with pytest.raises(UserError, match=r"template\.kind is chat, but the tokenizer has no chat template"):
        PromptTemplate(make_tiny_tokenizer(), Template(kind="chat"))


def test_a_tokenizer_without_bos_or_pad_is_fine() -> None:
    template = PromptTemplate(make_tiny_tokenizer(bos=False, pad=False), Template(text="{raw_prompt}>"))
    assert template.encode("a", "b").input_ids[-1] == 2
    assert len(template.encode("a", "b").input_ids) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("USER: {raw_promt} ASSISTANT:", r"no field \{raw_promt\}; did you mean 'raw_prompt'\?"),
        ("USER: {} ASSISTANT:", "no field"),
        ("USER: ASSISTANT:", r"the field \{raw_prompt\} is missing"),
        ("USER: {raw_prompt!r} ASSISTANT:", r"the field \{raw_prompt\} is missing"),
        ("USER: {raw_prompt} }", "template.text"),
        ("USER: {raw_prompt", "template.text"),
    ],
)
def test_a_wrong_plain_template_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PromptTemplate(make_tiny_tokenizer(), Template(text=text))


def test_messages_under_a_plain_template_are_refused() -> None:
    with pytest.raises(UserError, match=r"list of chat messages; use template\.kind: chat"):
        plain("byte level").encode([{"role": "user", "content": "x"}], "y")


def test_a_chat_template_that_refuses_the_messages_says_so() -> None:
    refusing = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{{ m['content'] }}</s>{% endfor %}"
    )
    with pytest.raises(UserError, match="chat template: System role not supported"):
        chat(refusing, system="be brief")


# end marks within texts


@named
def test_an_end_mark_of_a_plain_template_belongs_to_the_prompt(name: str) -> None:
    template = plain(name, "{raw_prompt}</s>")
    alone, encoded = template.prompt_ids("What?"), template.encode("What?", "Paris.")
    assert alone[-1] == 2
    assert alone.count(2) == 1
    assert encoded.input_ids[: encoded.prompt_length] == alone
    assert encoded.input_ids[encoded.prompt_length :].count(2) == 1
    assert template.encode("What?", "").input_ids == [*alone, 2]


@named
def test_a_text_keeps_the_end_mark_that_it_ends_in(name: str) -> None:
    template = plain(name)
    assert template.text_ids("One.</s>") == [*template.text_ids("One."), 2]


@pytest.mark.parametrize("mark", ["</s>", "</s>\n", "</s></s> "])
@named
def test_a_response_that_ends_in_the_end_mark_gets_no_second_one(name: str, mark: str) -> None:
    for template in (plain(name), chat(CHATS["bos in the text"][0])):
        assert template.encode("What?", f"Paris.{mark}") == template.encode("What?", "Paris.")
    inner = template.encode("What?", "One.</s> Two.")
    assert inner.input_ids[inner.prompt_length :].count(2) == 2  # where it was put, and at the end


def test_another_end_token_of_the_model_ends_a_response_too() -> None:
    tokenizer = byte_level()
    template = PromptTemplate(tokenizer, Template(), more_ends=[3])
    assert (template.eos_id, template.end_ids) == (2, {2, 3})
    encoded = template.encode("What?", "Paris.<|end|>")
    assert encoded.input_ids[-1] == 3
    assert 2 not in encoded.input_ids
    template.check_ends([("a", encoded)])


# templates that depend on the clock

CLOCKS = {
    "llama": "{% set day = strftime_now('%d %b %Y') if strftime_now is defined else 'never' %}Today {{ day }}.",
    "granite": "{{- 'Today %s.' % strftime_now('%-d. %B, %H:%M:%S') }}",
    "in a macro": (
        "{% macro head(form) %}{{ strftime_now(form) }}{% endmacro %}\n  {% if true %}{{ head('%Y') }}{% endif %}"
    ),
}
TURNS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}"


@pytest.mark.parametrize("name", CLOCKS)
def test_a_template_that_shows_the_date_shows_that_of_the_run(name: str) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = CLOCKS[name] + TURNS
    dated = PromptTemplate(tokenizer, Template("chat", date="2024-07-26T09:08:07"))
    shown = {"llama": "Today 26 Jul 2024.", "granite": "Today 26. July, 09:08:07.", "in a macro": "2024"}[name]
    assert dated.render("x").split("[")[0].strip() == shown
    now = PromptTemplate(tokenizer, Template("chat"))
    assert now.template.date is not None  # to be kept with the run
    assert PromptTemplate(tokenizer, now.template).render("x") == now.render("x")
    # what an exported folder holds needs no clock
    other = byte_level()
    other.chat_template = as_chat_template(dated)
    assert other.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == dated.render("x")


def test_a_template_without_a_clock_has_no_date() -> None:
    assert chat(TURNS).template.date is None
    with pytest.raises(UserError, match=r"template\.date: expected a date such as 2026-07-26, found 'today'"):
        PromptTemplate(byte_level(), Template(date="today"))


# templates that leave out what is said


def test_a_template_of_parts_is_given_parts_and_exported_for_texts() -> None:
    parts = (
        "{% for m in messages %}[{{ m['role'] }}]{% for part in m['content'] %}{{ part['text'] }}{% endfor %}</s>"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    template = chat(parts, system="Be brief.")
    assert template.render("Why?") == "[system]Be brief.</s>[user]Why?</s>[assistant]"
    tokenizer = byte_level()
    tokenizer.chat_template = as_chat_template(template)
    assert differing(template, tokenizer, ["Why?", " two\nlines", "it's"]) == 0


SKIPS = "{% for m in messages if m['role'] != 'system' %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}"
LAST = "[user]{{ messages[-1]['content'] }}</s>[assistant]"
CUTS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'][:20] }}</s>{% endfor %}"


@pytest.mark.parametrize(
    ("jinja", "message"),
    [
        (SKIPS, "leaves out the system message 'a', message 1 of the turns system, user, assistant, user"),
        (LAST, "leaves out the system message 'a', message 1 of the turns system, user, assistant, user"),
        (CUTS, "leaves out the user message 'a question of more characters'"),
    ],
)
def test_what_a_template_leaves_out_is_said(jinja: str, message: str) -> None:
    messages = [
        {"role": "system", "content": "a"},  # a letter that stands in every prompt
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "a question of more characters"},
    ]
    template = chat(jinja)
    with pytest.raises(UserError, match=message):
        template.prompt_ids(messages)
    assert "b" in template.render("b")


def test_a_system_message_of_the_recipe_that_the_template_skips_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="leaves out the system message 'be brief'"):
        chat(SKIPS, system="be brief")


def test_blanks_and_thoughts_may_go() -> None:
    jinja = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'].split('</think>')[-1] | trim }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    messages = [{"role": "user", "content": " a\n b "}, {"role": "assistant", "content": "<think>hm</think> yes "}]
    question = {"role": "user", "content": "why?"}
    assert chat(jinja).render([*messages, question]) == "[user]a\n b</s>[assistant]yes</s>[user]why?</s>[assistant]"


# templates without bounds


@pytest.mark.parametrize(
    ("jinja", "message"),
    [
        ("{{ lipsum() }}" + TURNS, "draws at random \\(lipsum\\)"),
        ("{{ [1, 2] | random }}" + TURNS, "draws at random \\(random\\)"),
        ("{{ 9 ** 9 ** 9 }}" + TURNS, "line 1: computes a power"),
        ("\n{{ 'a' * 10000000000 }}" + TURNS, "line 2: multiplies by 10000000000"),
        ("{% for i in range(10000000) %}{% endfor %}" + TURNS, "OverflowError: Range too big"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}" + TURNS, "RecursionError"),
        ("{% for i in range(99999) %}{{ '-' * 999 }}{% endfor %}" + TURNS, "makes 99[0-9]\\d+ characters of"),
        ("{{ 1 / 0 }}" + TURNS, "ZeroDivisionError"),
        ("{% for m in messages %}", "line 1: Unexpected end of template"),
    ],
)
def test_a_template_without_bounds_is_refused_in_one_line(jinja: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^the tokenizer's chat template: {message}"):
        chat(jinja)


def test_a_template_that_loops_is_broken_off_in_any_thread() -> None:
    tokenizer = byte_level()
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    tokenizer.chat_template = TURNS + "{% if 'loop' in messages[-1]['content'] %}" + loops + "{% endif %}"
    template = ChatTemplate(tokenizer, datetime(2024, 7, 26), seconds=0.3)
    question = [{"role": "user", "content": "do loop"}]
    for pool in (ThreadPoolExecutor(1), ThreadPoolExecutor(1)):
        with pool, pytest.raises(UserError, match=r"takes more than 0\.3 s for one prompt: it loops"):
            pool.submit(template.render, question).result()
    with pytest.raises(UserError, match="it loops"):
        template.render(question)
    assert "fine" in template.render([{"role": "user", "content": "fine"}])


def test_common_prefixes() -> None:
    assert common_prefix_length([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix_length([], [1]) == 0
    assert common_prefix_length([1, 2], [1, 2]) == 2
