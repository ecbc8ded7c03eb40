"""Training rows of conversations against TRL's: the ids and masks that its SFTTrainer makes by its training templates.

TRL renders a conversation once, by a template of its own in which no turn changes when others follow, and which marks
what the assistant says. Here the model's own template is used, and each answer has the context that the model is given
when it is asked. For most families these are the same rows. Where they are not, `DIFFERENT` says why, and what is
compared instead.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from squadron.core.errors import InputError
from squadron.train.models.families import FAMILIES, make_family_model
from squadron.train.objectives.layout import IGNORED
from squadron.train.text.conversations import encode_answers, encode_turns, render_turns
from squadron.train.text.templates import render, template_form

Message = dict[str, Any]
CHATTING = [name for name, family in FAMILIES.items() if family.chats]
CONVERSATIONS = 200

OPENINGS = {
    "qwen2.5": ("\n",),
    "deepseekv3": ("<｜Assistant｜>", "<｜tool▁outputs▁end｜>"),
    "deepseek_r1_distill": ("<｜Assistant｜>", "<｜tool▁outputs▁end｜>"),
    "deepseek_r1_distill_llama": ("<｜Assistant｜>", "<｜tool▁outputs▁end｜>"),
    "gptoss": ("<|start|>assistant",),
}
"""What TRL takes for a part of the answer, and the generation prompt has already. The masks differ by it alone."""

REWRITTEN = {
    "qwen3": "earlier turns lose their <think>; TRL's template keeps one in each, in contexts that no request has",
    "gptoss": "the last turn ends with <|return|> and has what was thought, earlier ones end with <|end|>",
    "glm4moe": "earlier turns lose what was thought",
    "deepseek_r1_distill": "the model is asked behind a <think>, which TRL's rows lack",
    "deepseek_r1_distill_llama": "the same",
    "deepseekv3": "the same",
}
"""Families whose template renders earlier turns otherwise, so that one conversation may be several rows: each answer
is compared with TRL's of the conversation up to it."""

UNMASKED = ("llama3.1", "llama3.2")
"""Families that TRL has no training template for, so that it trains on all their tokens: ids are compared, and targets
with what they were given."""


@cache
def words() -> tuple[str, ...]:
    return ("sum", "Zwölf", "你好", "é́", "🙂", "12", "3.5", "a_b", "don't", "\n", " ", "\t", "<b>", "“q”", "né", "x")


def text(draw: random.Random) -> str:
    joined = draw.choice((" ", "", "\n", "  ")).join(draw.choices(words(), k=draw.randint(1, 7)))
    return joined if joined.strip() else joined + "x"


def conversation(draw: random.Random, name: str, tokenizer: Any) -> tuple[list[Message], list[dict[str, Any]]]:
    """One to four questions with answers; where the template takes them a system prompt, tools, calls, thinking."""
    form = template_form(tokenizer)
    messages: list[Message] = []
    if name != "gemma2" and draw.random() < 0.5:
        messages.append({"role": "system", "content": text(draw)})
    named = [f"tool_{n}" for n in range(draw.randint(1, 2))]
    arguments = {"city": text(draw), "n": draw.randint(0, 99), "deep": {"ü": [None, True, 0.5]}}
    for _ in range(draw.randint(1, 4)):
        messages.append({"role": "user", "content": text(draw)})
        if form.arguments and draw.random() < 0.4:
            said: Any = arguments if "object" in form.arguments else json.dumps(arguments, ensure_ascii=False)
            call = {"id": "call00001", "type": "function", "function": {"name": named[0], "arguments": said}}
            content = text(draw) if form.beside_calls and draw.random() < 0.5 else form.no_content
            messages.append({"role": "assistant", "content": content, "tool_calls": [call]})
            messages.append({"role": "tool", "name": named[0], "tool_call_id": "call00001", "content": text(draw)})
        messages.append({"role": "assistant", "content": text(draw)})
        if form.thoughts and draw.random() < 0.5:
            messages[-1][form.thoughts[0]] = text(draw)
    parameters = {"type": "object", "properties": {"city": {"type": "string", "description": text(draw)}}}
    tools = [{"type": "function", "function": {"name": t, "description": "d", "parameters": parameters}} for t in named]
    return messages, tools if form.tools and draw.random() < 0.5 else []


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The tokenizer of a family's stand-in."""
    from transformers import AutoTokenizer

    @cache
    def made(name: str) -> Any:
        folder = tmp_path_factory.mktemp("family") / name
        return AutoTokenizer.from_pretrained(make_family_model(Path(folder), name, texts=words()))

    return made


def by_trl(tokenizer: Any, template: str | None, messages: list[Message], tools: list[Any]) -> dict[str, list[int]]:
    """A row as `SFTTrainer` makes it, with `assistant_masks` if the template is one of its own."""
    if template is not None and "| tojson" in template and "DeepSeek-V3" in template:
        messages = _arguments_as_objects(messages)
    row: dict[str, list[int]] = tokenizer.apply_chat_template(
        messages,
        tools=tools or None,
        chat_template=template,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=template is not None,
    )
    return row


def _arguments_as_objects(messages: list[Message]) -> list[Message]:
    """TRL's template for DeepSeek-V3 writes arguments as JSON, text as well; the model's takes text alone."""

    def parsed(call: dict[str, Any]) -> dict[str, Any]:
        return call | {"function": call["function"] | {"arguments": json.loads(call["function"]["arguments"])}}

    return [
        message | {"tool_calls": [parsed(call) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in messages
    ]


def said(tokenizer: Any, ids: list[int], mask: list[int]) -> list[str]:
    """The text of every stretch of targets."""
    found = []
    for taught, pairs in itertools.groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1]):
        if taught:
            found.append(tokenizer.decode([token for token, _ in pairs]))
    return found


def without(openings: tuple[str, ...], text: str) -> str:
    return next((text.removeprefix(opening) for opening in openings if text.startswith(opening)), text)


def mask_of(row: dict[str, Any]) -> list[int]:
    assert all(label in (token, IGNORED) for token, label in zip(row["input_ids"], row["labels"], strict=True))
    return [int(label != IGNORED) for label in row["labels"]]


@pytest.mark.parametrize("name", CHATTING)
def test_rows_are_those_of_trl(load: Callable[[str], Any], name: str) -> None:
    from trl.chat_template_utils import get_training_chat_template

    tokenizer, openings = load(name), OPENINGS.get(name, ())
    template = None if name in UNMASKED else get_training_chat_template(tokenizer)
    compared = 0
    for seed in range(CONVERSATIONS):
        messages, tools = conversation(random.Random(seed), name, tokenizer)
        rows, rendered = encode_turns(tokenizer, messages, tools), render_turns(tokenizer, messages, tools)
        assert len(rows) == 1 or name in REWRITTEN
        for row, shown in zip(rows, rendered, strict=True):
            # What a row teaches comes behind what the model is given when it is asked.
            upto, (start, end) = shown.turns[-1], shown.targets[-1]
            context = render(tokenizer, messages[:upto], tools, answer_next=True)
            assert shown.text[:start] == context
            theirs = by_trl(tokenizer, template, messages[: upto + 1], tools)
            ours, mask = row["input_ids"], mask_of(row)
            if name in UNMASKED:
                assert ours == theirs["input_ids"]
                assert shown.text[start:end] == messages[upto]["content"].strip() + "<|eot_id|>"
                continue
            found, wanted = (
                said(tokenizer, ours, mask),
                said(tokenizer, theirs["input_ids"], theirs["assistant_masks"]),
            )
            if name in REWRITTEN and (len(rows) > 1 or ours != theirs["input_ids"]):
                assert found[-1] == without(openings, wanted[-1])
                continue
            assert ours == theirs["input_ids"]
            compared += 1
            if not openings:
                assert mask == theirs["assistant_masks"]
            assert found == [without(openings, text) for text in wanted]
    assert compared >= 15 or name in UNMASKED or "deepseek" in name


def test_what_is_thought_in_the_content_is_taught_where_the_template_drops_it(load: Callable[[str], Any]) -> None:
    tokenizer = load("deepseek_r1_distill")
    asked, thought = (
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "<think>\neasy\n</think>\n\n4"},
    )
    first, second = render_turns(tokenizer, [asked, thought, asked, thought])
    assert first.text[slice(*first.targets[0])] == "easy\n</think>\n\n4<｜end▁of▁sentence｜>"
    assert first.text[: first.targets[0][0]] == render(tokenizer, [asked], answer_next=True)
    assert "easy" not in second.text[: second.targets[0][0]] and "easy" in second.text[second.targets[0][0] :]


@pytest.mark.parametrize("name", [name for name in CHATTING if "deepseek" not in name])
def test_pairs_are_those_of_trl(load: Callable[[str], Any], name: str) -> None:
    """Prompt and answers as `DPOTrainer` cuts them: where the tokens of the prompt alone and of the whole part."""
    tokenizer = load(name)
    draw = random.Random(0)
    for _ in range(20):
        asked = [{"role": "user", "content": text(draw)}]
        answers = [[{"role": "assistant", "content": text(draw)}] for _ in range(2)]
        prompt, ours = encode_answers(tokenizer, asked, answers)
        whole = [by_trl(tokenizer, None, [*asked, *answer], [])["input_ids"] for answer in answers]
        if name == "glm4moe":  # which ends no turn: what begins the next ends it
            whole = [[*ids, tokenizer.convert_tokens_to_ids("<|user|>")] for ids in whole]
        assert [prompt + answer for answer in ours] == whole
        given = tokenizer(render(tokenizer, asked, answer_next=True), add_special_tokens=False)["input_ids"]
        cut = min(
            next((n for n, pair in enumerate(zip(given, ids, strict=False)) if pair[0] != pair[1]), len(given))
            for ids in whole
        )
        # Where the template itself renders both answers alike, as with <think>, that is no part of the prompt.
        assert len(prompt) == cut or tokenizer.decode(given[len(prompt) :]).strip() == ""


def taken(name: str, tokenizer: Any) -> tuple[str, ...]:
    """A line of the page's table of families: what a family's template takes, and how answers become rows."""
    form = template_form(tokenizer)
    ask, say = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    try:
        system = "s1" in render(tokenizer, [{"role": "system", "content": "s1"}, ask, say])
    except InputError:
        system = False
    calls = "no" if not form.arguments else "several a turn" if form.several else "one a turn"
    rows = "one row" if len(render_turns(tokenizer, [ask, say, ask, say])) == 1 else "a row each"
    thoughts = f"`{form.thoughts[0]}`" if form.thoughts else "no"
    return f"`{name}`", rows, "yes" if system else "no", "yes" if form.tools else "no", calls, thoughts


def test_the_page_says_what_every_family_takes(load: Callable[[str], Any]) -> None:
    page = (Path(__file__).parents[2] / "lib/squadron/methods/finetune/README.md").read_text()
    lines = ["| " + " | ".join(taken(name, load(name))) + " |" for name in sorted(CHATTING)]
    assert "\n".join(lines) in page
