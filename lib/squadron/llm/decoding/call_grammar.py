"""Grammars of calls of tools, in llguidance's form of Lark.

What a template writes around a call holds added tokens, such as Qwen's `<tool_call>`, which a grammar names by their
ids: as text, the model would have to spell them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any


def call_grammar(
    tokenizer: Any,
    around: tuple[str, str, str],
    parameters: Mapping[str, Mapping[str, Any] | None],
    ends: Collection[int],
    *,
    required: bool,
) -> str:
    """A grammar of answers that call functions by the schemas of their `parameters`; None: with any object.

    `around` is what stands before the name of a function, between it and its arguments, and behind those. If `required`
    an answer is one call, else text with any number of calls; it stops at one of `ends`.
    """
    before, between, behind = around
    known = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
    first, *rest = _pieces(before, known)
    functions = " | ".join(
        f"{' '.join(_pieces(name + between, known))} %json {json.dumps(_strictly(schema))}"
        for name, schema in parameters.items()
    )
    call = " ".join([*rest, f"({functions})", *_pieces(behind, known)])
    if required:
        return f"start: {first} {call}\n"
    others = [str(number) for number in known.values() if number not in ends and first != _token(number)]
    skipped = "(CHUNK? other)* " if others else ""
    text = f"text: {skipped}CHUNK?\nCHUNK: /(.|\\n)+/\n" + (f"other: <[{','.join(others)}]>\n" if others else "")
    if first.startswith("<["):
        return f"start: text (call text)*\ncall: {first} {call}\n{text}"
    # Where plain text begins a call, it does so as soon as it stands there.
    return f"start: call* text\ncall: {skipped}begun {call}\nbegun[lazy]: CHUNK? {first}\n{text}"


def _pieces(text: str, known: Mapping[str, int]) -> list[str]:
    """A text as literals and added tokens."""
    tokens = "|".join(map(re.escape, sorted(known, key=len, reverse=True))) or "(?!)"
    parts = [part for part in re.split(f"({tokens})", text) if part]
    return [_token(known[part]) if part in known else json.dumps(part, ensure_ascii=False) for part in parts]


def _token(number: int) -> str:
    return f"<[{number}]>"


def _strictly(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """A schema, without the freedom to go on with spaces forever, which weak models use."""
    return {**(schema or {"type": "object"}), "x-guidance": {"whitespace_flexible": False}}
