"""What a model is asked: demonstrations, the question, and how to answer, in one message."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from squadron.methods.hot.config import Mode
from squadron.methods.hot.demonstrations import Demonstration
from squadron.methods.hot.tags import read_tags, strip_tags

_END = "End with what it comes to in curly braces: {…}."
_AGAIN = "First write the question again, word by word, after the heading `Reformatted Question:`"
_THEN = "Then explain your answer after the heading `Answer:`"
_KEY = "the phrases that matter most to: {last}"
INSTRUCTIONS: dict[Mode, str] = {
    "cot": f"Explain your answer to the question above step by step, after the heading `Answer:`. {_END}",
    "hot": f"Answer the question above by referring back to it. {_AGAIN}, with {{tags}} around {_KEY} {_THEN}, with "
    f"the same tags around whatever refers to these phrases. {_END}",
    "question_only": f"Answer the question above. {_AGAIN}, with {{tags}} around {_KEY} {_THEN}, without tags. {_END}",
    "answer_only": f"Answer the question above. {_AGAIN}, without tags. {_THEN}, with {{tags}} around whatever refers "
    f"to {_KEY} {_END}",
    "repeat": f"Answer the question above. {_AGAIN}. {_THEN}. {_END}",
}
"""How each mode asks for an answer; `random_tags` and `zero_shot` ask as `hot` does."""
_TAGS = "tags such as <fact1>…</fact1>, <fact2>…</fact2>"


def write_prompt(mode: Mode, question: str, shown: Sequence[Demonstration], seed: int = 0) -> str:
    """The message that asks for an answer to the question. Without demonstrations it says what tags look like. `seed`
    draws the numbers of random tags."""
    shots = [] if mode == "zero_shot" else [write_demonstration(mode, one, seed + n) for n, one in enumerate(shown)]
    how = INSTRUCTIONS.get(mode, INSTRUCTIONS["hot"])
    how = how.replace("{tags}", "tags" if shots else _TAGS).replace("{last}", last_sentence(question))
    return "\n\n".join([*shots, f"Question: {question}\n{how}"])


def write_demonstration(mode: Mode, one: Demonstration, seed: int = 0) -> str:
    """A demonstration as a mode shows it: an ablation leaves out tags, and changes nothing else."""
    if mode == "random_tags":
        one = shuffle_tags(one, seed)
    repeated = one.highlighted if one.highlighted is not None else one.question
    if mode in ("answer_only", "repeat"):
        repeated = strip_tags(repeated)
    answer = strip_tags(one.answer) if mode in ("cot", "question_only", "repeat") else one.answer
    lines = [f"Question: {one.question}", f"Reformatted Question: {repeated}", f"Answer: {answer}"]
    return "\n".join(lines[::2] if mode == "cot" else lines)


def shuffle_tags(one: Demonstration, seed: int) -> Demonstration:
    """The same phrases in tags, but those of the answer with numbers drawn from the question's."""
    answer = read_tags(one.answer)
    ids = sorted(read_tags(one.highlighted or "").ids)
    if not ids:
        return one
    draw = random.Random(seed)
    spans = tuple(span._replace(id=draw.choice(ids)) for span in answer.spans)
    return replace(one, answer=replace(answer, spans=spans).write())


def last_sentence(question: str) -> str:
    """What is asked for: the last sentence of a question, without the choices that follow it. One that ends in a
    question mark goes before a later one that does not."""
    text = _CHOICES.split(question, maxsplit=1)[0].strip() or question.strip()
    sentences = [part.strip() for part in _SENTENCE.split(text) if part.strip()]
    asked = [part for part in sentences if part.endswith("?")]
    return (asked or sentences or [text])[-1]


_CHOICES = re.compile(r"\s(?:answer choices|options|choices)\s*:|\n\s*\(?[A-Ea-e0-4][).]\s|\n\s*- ", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.?!])(?<!\b[A-Z]\.)(?<!Mr\.)(?<!Dr\.)(?<!Ms\.)(?<!Mrs\.)(?<!St\.)(?<!vs\.)\s+(?=\S)|\n+")
