"""From a conversation to the token ids of training rows, by the model's own chat template.

Each turn of the assistant is a target in the context that the template gives it when the model is asked: the text of
the turns before it, and the opening of its own. Most templates only append, so that a conversation is one row with
several targets. Others render earlier turns otherwise (Qwen3 and DeepSeek-R1 drop what was thought, gpt-oss ends its
last turn with another token): there a new row begins where the text of a turn is not the beginning of the next context.

A row's ids are those of its whole text, tokenised at once, as TRL has them. A token on the border of context and
answer, such as a line break that merges with another, is a target: it holds the first character of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any, Literal, NamedTuple

from squadron.core.errors import InputError
from squadron.train.objectives.layout import IGNORED
from squadron.train.text.endings import special_tokens, turn_end
from squadron.train.text.templates import apply_template, render, template_form

TrainOn = Literal["completion", "all"]
_MARK = "\ufffc"
"""Stands for an answer where its beginning is looked for; no template trims it."""


class Rendered(NamedTuple):
    """The text of a row, and the stretches of it that are targets, each with the turn that it belongs to."""

    text: str
    targets: tuple[tuple[int, int], ...]
    turns: tuple[int, ...]
    ended: int
    """Up to where the text has to stand in the next context, if that is to continue this row."""


def render_turns(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] = (),
    *,
    asked: int = 0,
    last_only: bool = False,
) -> list[Rendered]:
    """The rows of a conversation. Turns of the first `asked` messages are no targets; of the others all of the
    assistant's, or with `last_only` the last.

    Raises InputError, with the turn, for what the template refuses or has no place for.
    """
    fitted = template_form(tokenizer).fit(messages, tools)
    numbers = [n for n, message in enumerate(messages) if message["role"] == "assistant" and n >= asked]
    rows: list[Rendered] = []
    for number in numbers[-1:] if last_only else numbers:
        context, turn = _render_turn(tokenizer, fitted, number, tools)
        before = rows[-1] if rows else None
        shared = _shared(before.text, context) if before else 0
        if before is None or shared < before.ended or turn.targets[0][0] < shared:
            rows.append(turn)
            continue
        *done, (start, end) = before.targets
        targets = (*done, (start, min(end, _closed(tokenizer, before, shared))), *turn.targets)
        rows[-1] = Rendered(turn.text, targets, before.turns + turn.turns, turn.ended)
    return rows


def encode_turns(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] = (),
    *,
    asked: int = 0,
    train_on: TrainOn = "completion",
    last_only: bool = False,
) -> list[dict[str, Any]]:
    """`input_ids`, `labels` and `length` of every row of a conversation, as `render_turns` has them. With `train_on`
    "all" it is one row, as the template renders it, and every token is a target."""
    if train_on == "all":
        text = render(tokenizer, template_form(tokenizer).fit(messages, tools), tools)
        return [encode_rendered(tokenizer, Rendered(text, ((0, len(text)),), (), 0))]
    rows = render_turns(tokenizer, messages, tools, asked=asked, last_only=last_only)
    return [encode_rendered(tokenizer, row) for row in rows]


def encode_conversation(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`input_ids`, `labels` and `length` of a conversation up to its last answer; earlier ones are targets, too, if
    they stand there as they were said."""
    return encode_turns(tokenizer, messages)[-1]


def encode_answers(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    answers: Sequence[str | Sequence[Mapping[str, Any]]],
    tools: Sequence[Any] = (),
    *,
    ended: bool = True,
) -> tuple[list[int], list[list[int]]]:
    """The ids of what is asked, and of each of several answers to it, which are text or messages. All answers follow
    the same tokens. Without `ended`, answers are the beginnings of a turn."""
    texts = []
    fitted = template_form(tokenizer).fit(messages, tools)
    for answer in answers:
        if isinstance(answer, str) and not ended:
            context = render(tokenizer, fitted, tools, answer_next=True)
            texts.append(Rendered(context + answer, ((len(context), len(context + answer)),), (), 0))
            continue
        said = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else list(answer)
        whole = template_form(tokenizer).fit([*messages, *said], tools)
        _, first = _render_turn(tokenizer, whole, len(messages), tools, upto=len(whole))
        texts.append(first)
    rows = [encode_rendered(tokenizer, text) for text in texts]
    prompts = [list(takewhile(lambda pair: pair[1] == IGNORED, _pairs(row))) for row in rows]
    shared = min(len(prompt) for prompt in prompts)
    same = list(
        takewhile(lambda ids: len(set(ids)) == 1, zip(*(row["input_ids"][:shared] for row in rows), strict=True))
    )
    return rows[0]["input_ids"][: len(same)], [row["input_ids"][len(same) :] for row in rows]


def encode_completion(tokenizer: Any, prompt: str, completion: str) -> dict[str, Any]:
    """`input_ids`, `labels` and `length` of plain text that ends; only the completion and its end are targets."""
    before, after = token_ids(tokenizer, prompt), [*token_ids(tokenizer, completion), tokenizer.eos_token_id]
    labels = [IGNORED] * len(before) + after
    return {"input_ids": before + after, "labels": labels, "length": len(labels)}


def encode_rendered(tokenizer: Any, row: Rendered) -> dict[str, Any]:
    """`input_ids`, `labels` and `length` of a text whose targets are known by their characters."""
    if not tokenizer.is_fast:  # without offsets, the pieces are tokenised one by one
        return _encode_pieces(tokenizer, row)
    found = tokenizer(row.text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(found["input_ids"]), found["offset_mapping"]
    labels, place = [IGNORED] * len(ids), 0
    for start, end in row.targets:
        while place < len(ids) and offsets[place][1] <= start:
            place += 1
        while place < len(ids) and offsets[place][0] < end:
            labels[place] = ids[place]
            place += 1
    return {"input_ids": ids, "labels": labels, "length": len(ids)}


def prompt_text(tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = ()) -> str:
    """A conversation as the text that the assistant goes on from: the opening of its turn, or the words of that turn
    which the conversation ends with."""
    begun = messages[-1]["content"] if messages[-1]["role"] == "assistant" else None
    if begun is None:
        return apply_template(tokenizer, messages, tools, answer_next=True)
    return apply_template(tokenizer, messages[:-1], tools, answer_next=True) + str(begun)


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text as it is, with nothing added."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _render_turn(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], number: int, tools: Sequence[Any], upto: int | None = None
) -> tuple[str, Rendered]:
    """The context of a turn of the assistant, and the text up to the end of that turn, or of the first `upto`."""
    asked = messages[:number]
    context = render(tokenizer, asked, tools, answer_next=True) if asked else ""
    said = messages[: upto or number + 1]
    whole = render(tokenizer, said, tools)
    whole = _with_thoughts(tokenizer, whole, context, said, tools)
    start = len(context)
    if not asked or not whole.startswith(context):
        whole, start = _aligned(tokenizer, context, whole, asked, tools)
    whole, ended = _ended(tokenizer, whole, start, said, tools)
    return context, Rendered(whole, ((start, len(whole)),), (number,), ended)


def _aligned(
    tokenizer: Any, context: str, whole: str, asked: Sequence[Mapping[str, Any]], tools: Sequence[Any]
) -> tuple[str, int]:
    """The text of a turn that does not begin with its context, with that put before it, and where the answer begins."""
    marked = render(tokenizer, [*asked, {"role": "assistant", "content": _MARK}], tools)
    if not asked:
        return whole, _shared(whole, marked)
    # The opening may go further than the turn: DeepSeek-R1's ends with a <think> that no answer is rendered with.
    start, history = _shared(whole, context, marked), _shared(context, render(tokenizer, asked, tools))
    if start >= history:
        return context + whole[start:], len(context)
    # The answer has changed what stands before it (gpt-oss drops what was thought before a call, once there is a
    # final answer): the model is given the context as it is without one.
    opening = context[history:]
    place = whole.rfind(opening, 0, _shared(whole, marked)) if opening else -1
    if place < 0:
        what = "the chat template rewrites what was asked once there is an answer, so that targets cannot be told"
        fix = "train on whole conversations (data.train_on=all), or take a model with another template"
        raise InputError(what, where=f"turn {len(asked) + 1}", fix=fix)
    return context + whole[place + len(opening) :], len(context)


def _with_thoughts(
    tokenizer: Any, whole: str, context: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]
) -> str:
    """The text with what the last turn thinks in its content, where the template drops it from every turn
    (DeepSeek-R1's distilled models)."""
    content = messages[-1]["content"]
    if not isinstance(content, str) or "</think>" not in content:
        return whole
    thought = content.rpartition("</think>")[0].replace("<think>", "").strip()
    if thought in whole[_shared(whole, context) :]:  # what was asked may say the same
        return whole
    marked = render(tokenizer, [*messages[:-1], {**messages[-1], "content": _MARK}], tools)
    return marked.replace(_MARK, content)


def _ended(
    tokenizer: Any, whole: str, start: int, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]
) -> tuple[str, int]:
    """The text with an end of turn behind it, and where that ends. What ends a turn in templates that put nothing
    there is what the next begins with (GLM)."""
    special = _special_texts(tokenizer, len(tokenizer))
    end = turn_end(tokenizer)
    token = tokenizer.convert_ids_to_tokens(end) if end is not None else tokenizer.eos_token
    if token and (place := whole.rfind(token, start)) >= 0:
        return whole, place + len(token)
    if token and not whole.rstrip().endswith(special):
        whole += _next_opening(tokenizer, whole, messages, tools, special) or token
    return whole, len(whole.rstrip())


# Tokens that are added later are another key.
@lru_cache(maxsize=16)
def _special_texts(tokenizer: Any, size: int) -> tuple[str, ...]:
    """The special tokens of a tokenizer, as they stand in texts."""
    return tuple(tokenizer.convert_ids_to_tokens(sorted(special_tokens(tokenizer))))


def _closed(tokenizer: Any, row: Rendered, shared: int) -> int:
    """Where the last turn of a row ends in a context that has the first `shared` characters of it: behind its end, and
    the special tokens and spaces that follow there."""
    special = _special_texts(tokenizer, len(tokenizer))
    place = row.ended
    while place < shared:
        token = max((one for one in special if row.text.startswith(one, place)), key=len, default="")
        step = len(token) or int(row.text[place].isspace())
        if not step or place + step > shared:
            break
        place += step
    return place


def _next_opening(
    tokenizer: Any, whole: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], special: Sequence[str]
) -> str:
    """The special token that the turn behind a conversation begins with: a tool's after a call, else the user's."""
    role = "tool" if messages[-1].get("tool_calls") else "user"
    try:
        following = render(tokenizer, [*messages, {"role": role, "content": _MARK}], tools)
    except InputError:
        return ""
    behind = following[len(whole) :] if following.startswith(whole) else ""
    return max((token for token in special if behind.startswith(token)), key=len, default="")


def _encode_pieces(tokenizer: Any, row: Rendered) -> dict[str, Any]:
    ids: list[int] = []
    labels: list[int] = []
    done = 0
    for start, end in (*row.targets, (len(row.text), len(row.text))):
        for piece, taught in ((row.text[done:start], False), (row.text[start:end], True)):
            found = token_ids(tokenizer, piece) if piece else []
            ids += found
            labels += found if taught else [IGNORED] * len(found)
        done = end
    return {"input_ids": ids, "labels": labels, "length": len(ids)}


def _pairs(row: Mapping[str, Any]) -> zip[tuple[int, int]]:
    return zip(row["input_ids"], row["labels"], strict=True)


def _shared(*texts: str) -> int:
    """How many characters the texts have in common from their beginning."""
    shortest = min(texts, key=len)
    if all(text.startswith(shortest) for text in texts):
        return len(shortest)
    return next(n for n, characters in enumerate(zip(*texts, strict=False)) if len(set(characters)) > 1)
