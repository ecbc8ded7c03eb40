"""Calls of tools: what a family's template writes is read back, and whatever else a model writes is text."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models

from squadron.core.errors import InputError
from squadron.train.models.families import FAMILIES, template_text
from squadron.train.text.calls import Call, CallReader, call_form, known_form
from squadron.train.text.templates import render, template_form

MISTRAL = """{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}\
{% if loop.last and tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}\
[INST]{{ m.content }}[/INST]{% elif m.tool_calls %}[TOOL_CALLS]CALLS{{ eos_token }}\
{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]{% else %}{{ m.content }}{{ eos_token }}\
{% endif %}{% endfor %}"""
"""What tells Mistral's templates from others, shortened; CALLS is written as releases 3 and 11 of its tokenizer do."""
LISTED = """ [{% for c in m.tool_calls %}{"name": {{ c.function.name | tojson }}, "arguments": \
{{ c.function.arguments | tojson }}, "id": {{ c.id | tojson }}}{{ ", " if not loop.last }}{% endfor %}]"""
NAMED = """{% for c in m.tool_calls %}{{ "[TOOL_CALLS]" if not loop.first }}{{ c.function.name }}[ARGS]\
{{ c.function.arguments | tojson }}{% endfor %}"""
TEMPLATES = {name: template_text(name) for name, family in FAMILIES.items() if family.chats}
TEMPLATES |= {
    "mistral-v3": MISTRAL.replace("CALLS]CALLS", "CALLS]" + LISTED),
    "mistral-v11": MISTRAL.replace("CALLS]CALLS", "CALLS]" + NAMED),
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "d",
            "parameters": {
                "type": "object",
                "properties": {"text": {"type": "string"}, "number": {"type": "integer"}, "list": {"type": "array"}},
            },
        },
    }
    for name in ("weather", "look_up")
]


@cache
def tokenizer_of(name: str) -> Any:
    """A tokenizer with the family's added tokens and template, and no others."""
    from transformers import PreTrainedTokenizerFast

    family = FAMILIES.get(name)
    special = family.tokens() if family else ["<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[ARGS]"]
    made = Tokenizer(models.BPE())
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    made.add_tokens([AddedToken(token, normalized=False) for token in (family.words if family else ())])
    ends = {"bos_token": family.bos, "eos_token": family.eos} if family else {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **{key: one for key, one in ends.items() if one})
    tokenizer.chat_template = TEMPLATES[name]
    return tokenizer


CALLING = [name for name in TEMPLATES if template_form(tokenizer_of(name)).arguments]
OFFERING = [name for name in CALLING if template_form(tokenizer_of(name)).tools]


def test_the_families_that_call_tools() -> None:
    assert set(OFFERING) == {
        "llama3.1", "llama3.2", "qwen2.5", "qwen3", "gptoss", "glm4moe", "mistral-v3", "mistral-v11",
    }  # fmt: skip
    assert set(CALLING) - set(OFFERING) == {"deepseekv3", "deepseek_r1_distill", "deepseek_r1_distill_llama"}


def written(tokenizer: Any, calls: list[Call], content: str = "") -> str:
    """What a model writes that makes these calls, without the end of its turn."""
    form = template_form(tokenizer)
    asked = [{"role": "user", "content": "a"}]
    told = [
        {"id": f"call0000{n}", "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for n, call in enumerate(calls)
    ]
    said = form.fit([*asked, {"role": "assistant", "content": content or None, "tool_calls": told}])
    context, whole = render(tokenizer, asked, answer_next=True), render(tokenizer, said)
    text = whole[len(context) :] if whole.startswith(context) else whole[len(render(tokenizer, asked)) :]
    return text.rstrip().removesuffix(tokenizer.eos_token)


def read(tokenizer: Any, text: str, size: int = 0, most: int | None = None) -> tuple[str, list[Call]]:
    """Text and calls, of an answer that comes in pieces; a special token comes as a whole."""
    reader = CallReader(tokenizer, known_form(tokenizer), TOOLS, most=most)
    pieces = [text]
    if size:
        parts = re.split(f"({special_in(tokenizer).pattern})", text)
        # Every second part is a special token.
        sizes = [size if number % 2 == 0 else 99 for number in range(len(parts))]
        pieces = [part[at : at + n] for part, n in zip(parts, sizes, strict=True) for at in range(0, len(part), n)]
    begun = "".join(map(reader.feed, pieces))
    rest, calls = reader.finish()
    return begun + rest, calls


def special_in(tokenizer: Any) -> re.Pattern[str]:
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return re.compile("|".join(map(re.escape, special)))


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8).map(str.strip)
free = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
typed = st.fixed_dictionaries(
    {"text": words, "number": st.integers(-99, 99)}, optional={"list": st.lists(st.integers(), max_size=3)}
)


@pytest.mark.parametrize("name", CALLING)
@given(st.data())
@settings(max_examples=15)
def test_what_a_template_writes_is_read_back(name: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(name)
    form = template_form(tokenizer)
    # GLM writes texts without quotes: the schema alone says what they are.
    arguments = typed if name == "glm4moe" else typed | st.dictionaries(words, free, max_size=3)
    some = st.builds(Call, st.sampled_from(["weather", "look_up"]), arguments)
    calls = data.draw(st.lists(some, min_size=1, max_size=3 if form.several else 1))
    content = data.draw(st.sampled_from(["", "I look."])) if form.beside_calls else ""
    text, found = read(tokenizer, written(tokenizer, calls, content), data.draw(st.sampled_from([0, 1, 7])))
    assert found == calls
    assert content in text and "tool" not in text


@pytest.mark.parametrize("name", CALLING)
@given(st.data())
@settings(max_examples=15)
def test_what_is_no_call_is_text_as_it_was_written(name: str, data: st.DataObject) -> None:
    """Calls cut off, of tools that are not there, with arguments that are none, and plain text."""
    tokenizer = tokenizer_of(name)
    whole = written(tokenizer, [Call("weather", {"text": "here"})])
    broken = data.draw(
        st.sampled_from(
            [
                whole.replace("weather", "another"),
                whole.replace('"here"', "[" * 5000).replace("weather", "\x01"),
                whole[: whole.index("weather")],
                # Without quotes, a beginning is a whole.
                whole[: whole.index("here")] if name != "glm4moe" else "",
                "no call at all <think> so </think> {}",
            ]
        )
        | words
    )
    text, found = read(tokenizer, broken, data.draw(st.sampled_from([0, 1, 3])))
    assert (text, found) == (special_in(tokenizer).sub("", broken), [])


def test_one_call_where_no_more_are_wanted_or_shown() -> None:
    calls = [Call("weather", {"text": "a"}), Call("look_up", {"number": 1})]
    qwen = tokenizer_of("qwen3")
    text = written(qwen, calls, "Both.")
    assert read(qwen, text)[1] == calls and read(qwen, text, most=1)[1] == calls[:1]


def test_calls_that_are_only_thought_of_are_none() -> None:
    qwen = tokenizer_of("qwen3")
    call = written(qwen, [Call("weather", {})]).rpartition("</think>")[2].strip()
    thought = f"<think>\nI might say {call} here\n</think>\n\nNo."
    assert read(qwen, thought) == (thought, [])
    assert read(qwen, thought + call) == (thought, [Call("weather", {})])
    begun = CallReader(qwen, known_form(qwen), TOOLS, prompt="<|im_start|>assistant\n<think>\n")
    left = thought.removeprefix("<think>\n")
    assert begun.feed(left + call) == left and begun.finish() == ("", [Call("weather", {})])


def test_llama_s_own_ways_to_write_a_call() -> None:
    llama = tokenizer_of("llama3.1")
    call = json.dumps({"name": "weather", "parameters": {"text": "a } b"}})
    for text in (call, "<|python_tag|>" + call, '{"type": "function", ' + call[1:], "I look.\n" + call + "\n"):
        assert read(llama, text)[1] == [Call("weather", {"text": "a } b"})]


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - set(OFFERING)))
def test_a_template_without_a_place_for_tools_says_so(name: str) -> None:
    with pytest.raises(InputError, match="no place for"):
        call_form(tokenizer_of(name))
