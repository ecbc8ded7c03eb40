"""M0: the model that the user names, or a small one from random weights that has read the small world's texts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from squadron.core.folder import relative
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows, write_rows
from squadron.methods.self_rewarding import algorithm
from squadron.methods.self_rewarding.config import PromptsConfig
from squadron.methods.self_rewarding.conversations import judge_messages
from squadron.methods.self_rewarding.records import Lessons, Model
from squadron.methods.self_rewarding.synthetic_task import WorldConfig, base_texts, draw
from squadron.methods.self_rewarding.tuning import train_model
from squadron.train.library_setup import quiet_libraries
from squadron.train.models.random_init import store_untrained
from squadron.train.text.tokenizer import load_chat_tokenizer, store_tokenizer

_TOKENIZED = 3000
"""Rows of each kind of lesson that the tokenizer is trained on."""


def prepare(
    stage: Stage, lessons: Lessons, base: str | None, world: WorldConfig, prompts: PromptsConfig, seed: int, rounds: int
) -> Model:
    """Find the base model, or train the small world's. Raises InputError if there is no such model, ConfigError if it
    has no chat template."""
    quiet_libraries()
    if base is not None:
        load_chat_tokenizer(base, "the base model")
        return Model(name="M0", path=base, inside_run=False)
    from squadron.train.objectives.language import SupervisedFineTuning

    tokenizer = store_tokenizer(_texts(stage, lessons, prompts), world.vocabulary, stage.folder)
    store_untrained(stage.folder, "untrained", tokenizer, world.size, seed)
    rows = _encode(stage, tokenizer, world, seed, rounds)
    start = Model(name="untrained", path=relative(stage.folder, stage.run.folder, "untrained"))
    spec = world.training.model_copy(update={"seed": seed})
    return train_model(stage, "M0", start, SupervisedFineTuning(spec.loss_chunk), rows, spec, None)


def _texts(stage: Stage, lessons: Lessons, prompts: PromptsConfig) -> Iterator[str]:
    folder = stage.run.folder
    for row in itertools.islice(folder.read_lines(lessons.instruction), _TOKENIZED):
        yield from (algorithm.solve_messages(prompts.solve, row["question"])[0]["content"], "\n".join(row["steps"]))
    for row in itertools.islice(folder.read_lines(lessons.evaluation), _TOKENIZED):
        shown = row["question"], row["steps"], row["first"], row["second"]
        yield judge_messages(prompts, *shown)[0]["content"]
        yield row["judgement"]
    yield from ("user", "assistant")


def _encode(stage: Stage, tokenizer: str, world: WorldConfig, seed: int, rounds: int) -> ArrowRows:
    from transformers import AutoTokenizer

    from squadron.train.models.builders import local_folder
    from squadron.train.text.conversations import encode_completion

    words = AutoTokenizer.from_pretrained(local_folder(tokenizer))
    texts = base_texts(draw(world, seed, rounds), world, seed)
    write_rows(stage.folder, "texts.arrow", (encode_completion(words, given, learned) for given, learned in texts))
    return ArrowRows(stage.run.folder, [relative(stage.folder, stage.run.folder, "texts.arrow")])
