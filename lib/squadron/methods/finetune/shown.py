"""A record as the model gets it, for `squadron plan finetune … --show-row 3`. Reads no weights."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from squadron.core.console import plain
from squadron.core.errors import InputError
from squadron.methods.finetune.base import texts_of
from squadron.methods.finetune.config import FinetuneConfig
from squadron.methods.finetune.dataset import encode_row, find_records
from squadron.methods.finetune.encoding import check_template, encoder
from squadron.methods.finetune.examples import Example, read_example, to_row
from squadron.train.library_setup import quiet_libraries
from squadron.train.models.families import read_template
from squadron.train.objectives.layout import IGNORED
from squadron.train.text.fitting import Fitting
from squadron.train.text.tokenizer import load_tokenizer, train_tokenizer

_SCRATCH_RECORDS = 2000
"""What a tokenizer is trained on here where the run trains one on all records."""


def show_row(config: FinetuneConfig, number: int) -> Iterator[str]:
    """Lines of markup: the rows of record `number`, counted from 1, with what is taught in green and brackets.

    Raises InputError if there is no such record, or it cannot be encoded.
    """
    quiet_libraries()
    data, objective = config.data, config.objective
    record = next(islice(find_records(data), number - 1, None), None) if number > 0 else None
    if record is None:
        count = sum(1 for _ in find_records(data))
        raise InputError(f"there is no record {number:,}", where="--show-row", fix=f"give 1 to {count:,}")
    tokenizer = _tokenizer(config)
    check_template(tokenizer, data)
    example = read_example(objective, data, record)
    rows = encode_row(
        encoder(objective, data, tokenizer, (example.get("label"),)), to_row(example, number - 1, record.where)
    )
    turns = _taught_turns(example, config)
    yield f"[bold]Record {number:,}[/bold] ({plain(record.where)}): {_count(len(rows), 'row')}"
    limit = config.training.max_length
    fitting = Fitting(limit, data.too_long, config.training.packing, causal=objective != "process_reward")
    for place, encoded in enumerate(rows, start=1):
        row = fitting.fit(encoded) or encoded
        for name, ids, labels in _sequences(row):
            taught = sum(label != IGNORED for label in labels)
            stretches = sum(1 for is_target, _ in groupby(label != IGNORED for label in labels) if is_target)
            here, turns = turns[:stretches], turns[stretches:]
            of_turns = f", turn{'s' * (len(here) > 1)} {', '.join(map(str, here))}" if here else ""
            title = f"[bold]{name or f'Row {place}'}[/bold]"
            yield f"\n{title}: {_count(len(ids), 'token')}, {taught:,} of them targets{of_turns}"
            yield _marked(tokenizer, ids, labels)
    for what, how_many in fitting.counts().items():
        yield f"\n[yellow]{what}: {how_many}[/yellow]"


def _tokenizer(config: FinetuneConfig) -> Any:
    """The model's tokenizer, or one like that which the run will train, with the chat template that is named."""
    tokenizer = load_tokenizer(config.model.path) if config.model.path is not None else _trained(config)
    if config.model.chat_template is not None:
        tokenizer.chat_template = read_template(config.model.chat_template)
    return tokenizer


def _trained(config: FinetuneConfig) -> Any:
    records = islice(find_records(config.data), _SCRATCH_RECORDS)
    texts = (text for one in records for text in texts_of(read_example(config.objective, config.data, one)))
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(texts, config.model.scratch.vocabulary, Path(folder))
        return load_tokenizer(folder)


def _taught_turns(example: Example, config: FinetuneConfig) -> list[int]:
    """The turns of a conversation that are targets, counted from 1, in the order in which rows have them."""
    if config.objective != "sft" or config.data.train_on == "all":
        return []
    turns = [
        number
        for number, message in enumerate(example.get("messages", ()), start=1)
        if message["role"] == "assistant" and number > example.get("asked", 0)
    ]
    return turns[-1:] if config.data.mask_history else turns


def _sequences(row: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[int], Sequence[int]]]:
    """The token sequences of a row, each with a name and its labels."""
    if "input_ids" in row:
        yield "", row["input_ids"], row.get("labels", [IGNORED] * len(row["input_ids"]))
        return
    prompt = row.get("prompt_ids", [])
    for name in ("chosen", "rejected"):
        answer = row[f"{name}_ids"]
        # A reward model reads the whole, and is asked for its score at the last token.
        labels = [IGNORED] * len(prompt) + list(answer) if prompt else [IGNORED] * (len(answer) - 1) + [1]
        yield name.capitalize(), [*prompt, *answer], labels


def _marked(tokenizer: Any, ids: Sequence[int], labels: Sequence[int]) -> str:
    """The text, with every stretch of targets in green and brackets."""
    pieces = []
    pairs = zip(ids, labels, strict=True)
    for taught, run in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        text = plain(tokenizer.decode([token for token, _ in run]))
        pieces.append(f"[green]⟦{text}⟧[/green]" if taught else text)
    return "".join(pieces)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
