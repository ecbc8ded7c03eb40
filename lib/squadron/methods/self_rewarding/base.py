"""M0: the model that the user names, or a small one from random weights that has read the small world's texts."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from squadron.core.errors import InputError
from squadron.core.folder import relative
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows, write_rows
from squadron.methods.self_rewarding import algorithm
from squadron.methods.self_rewarding.config import PromptsConfig
from squadron.methods.self_rewarding.records import Lessons, Model
from squadron.methods.self_rewarding.tuning import train_model
from squadron.methods.self_rewarding.world import WorldConfig, base_texts, draw
from squadron.train.quiet import quiet_libraries

_TOKENIZED = 3000
"""Rows of each kind of lesson that the tokenizer is trained on."""


def prepare(
    stage: Stage, lessons: Lessons, base: str | None, world: WorldConfig, prompts: PromptsConfig, seed: int, rounds: int
) -> Model:
    """Find the base model, or train the small world's. Raises InputError if there is no such model, or it has no chat
    template."""
    quiet_libraries()
    if base is not None:
        _check(base)
        return Model(name="M0", path=base, inside_run=False)
    place = _untrained(stage, lessons, world, prompts, seed)
    rows = _encode(stage, place, world, seed, rounds)
    from squadron.train.objectives.language import SupervisedFineTuning

    start = Model(name="untrained", path=place)
    spec = world.training.model_copy(update={"seed": seed})
    return train_model(stage, "M0", start, SupervisedFineTuning(spec.loss_chunk), rows, spec, None)


def _check(base: str) -> None:
    from transformers import AutoConfig, AutoTokenizer

    from squadron.train.models import local_folder

    try:
        AutoConfig.from_pretrained(local_folder(base), trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(local_folder(base), trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        fix = "give a hub name (organisation/model) or a folder with a model and its tokenizer"
        raise InputError(f"the base model cannot be loaded: {first}", where=base, fix=fix) from error
    if tokenizer.chat_template is None:
        fix = "give its tokenizer a chat template, save both in a folder, and name that as base"
        raise InputError("the base model has no chat template", where=base, fix=fix)


def _untrained(stage: Stage, lessons: Lessons, world: WorldConfig, prompts: PromptsConfig, seed: int) -> str:
    """A folder with a model of random weights and a tokenizer of the world's texts, relative to the run folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from squadron.train.tokenizer import train_tokenizer

    with tempfile.TemporaryDirectory() as scratch:
        train_tokenizer(_texts(stage, lessons, prompts), world.vocabulary, Path(scratch))
        words: Any = AutoTokenizer.from_pretrained(scratch)
        size: dict[str, Any] = {
            "vocab_size": len(words),
            "hidden_size": world.hidden_size,
            "intermediate_size": world.hidden_size * 8 // 3 // 8 * 8,
            "num_hidden_layers": world.layers,
            "num_attention_heads": world.heads,
            "num_key_value_heads": world.heads,
            "max_position_embeddings": world.context,
            "initializer_range": world.initializer_range,
            "rope_parameters": {"rope_type": "default", "rope_theta": world.rope_theta},
            "tie_word_embeddings": True,
            "pad_token_id": words.pad_token_id,
            "eos_token_id": words.eos_token_id,
            "bos_token_id": None,
        }
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **size)).save_pretrained(scratch)
        for file in sorted(Path(scratch).iterdir()):
            stage.folder.put(f"untrained/{file.name}", str(file))
    return f"{relative(stage.folder, stage.run.folder)}/untrained"


def _texts(stage: Stage, lessons: Lessons, prompts: PromptsConfig) -> Iterator[str]:
    folder = stage.run.folder
    for row in itertools.islice(folder.read_lines(lessons.instruction), _TOKENIZED):
        yield from (algorithm.solve_messages(prompts.solve, row["question"])[0]["content"], "\n".join(row["steps"]))
    for row in itertools.islice(folder.read_lines(lessons.evaluation), _TOKENIZED):
        shown = row["question"], row["steps"], row["first"], row["second"]
        yield algorithm.judge_messages(prompts.judge, *shown, prompts.no_steps)[0]["content"]
        yield row["judgement"]
    yield from ("user", "assistant")


def _encode(stage: Stage, place: str, world: WorldConfig, seed: int, rounds: int) -> ArrowRows:
    from transformers import AutoTokenizer

    from squadron.train.conversations import encode_completion
    from squadron.train.models import local_folder

    words = AutoTokenizer.from_pretrained(local_folder(stage.run.folder.file(place)))
    texts = base_texts(draw(world, seed, rounds), world, seed)
    write_rows(stage.folder, "texts.arrow", (encode_completion(words, given, learned) for given, learned in texts))
    return ArrowRows(stage.run.folder, [relative(stage.folder, stage.run.folder, "texts.arrow")])
