"""What the model answers before and after."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from squadron.core.errors import ResourceError
from squadron.core.panels import Text
from squadron.core.run import Stage
from squadron.data.arithmetic import is_correct
from squadron.evaluate.panels import estimate_table
from squadron.evaluate.summary import estimate
from squadron.llm.backends.batches import in_batches
from squadron.llm.chat import Sampling
from squadron.llm.decoding.decoder import Answer
from squadron.llm.decoding.generation import generate
from squadron.llm.decoding.sampling import Sampler
from squadron.methods.finetune.config import DataConfig, ObjectiveName, SamplesConfig
from squadron.methods.finetune.dataset import encode_row
from squadron.methods.finetune.encoding import encoder
from squadron.methods.finetune.records import Dataset, Export, SampleScores
from squadron.train.library_setup import quiet_libraries
from squadron.train.models.artifact import ModelArtifact
from squadron.train.objectives.layout import IGNORED
from squadron.train.text.endings import stop_tokens


def compare(
    stage: Stage,
    exported: Export,
    data: Dataset,
    model: ModelArtifact,
    objective: ObjectiveName,
    settings: DataConfig,
    config: SamplesConfig,
) -> SampleScores:
    """Let the model answer held-out prompts, as it was and as it is.

    Answers are greedy; those that end in a number behind the marker are checked.
    """
    count = min(max(config.shown, config.scored), data.held_out.count)
    if objective not in ("sft", "dpo") or settings.columns.text or not count:
        return SampleScores(scored=0, right_before=0, right_after=0)
    quiet_libraries()
    run = stage.run.folder
    records = data.held_out.rows(run)[:count]
    prompts, references = _prompts(stage, model, objective, settings, records, config.max_new_tokens)
    if not (count := len(prompts)):
        return SampleScores(scored=0, right_before=0, right_after=0)
    base = model.locate(run)
    tokenizer = model.load_tokenizer(run)
    # A model cannot begin from nothing.
    asked = [prompt or [model.pad_token_id] for prompt in prompts]
    before = answer(base, None, asked, tokenizer, config, model.rows)
    adapts, trained = exported.adapter_of is not None, exported.locate(run)
    after = answer(base if adapts else trained, trained if adapts else None, asked, tokenizer, config)
    for number in range(min(config.shown, count)):
        said = {
            "asked": tokenizer.decode(prompts[number]),
            "reference": references[number],
            "before": before[number],
            "after": after[number],
        }
        text = "\n\n".join(f"— {name} —\n{_shown(answer)}" for name, answer in said.items())
        stage.show(Text(title=f"Sample {number + 1}", text=text))
    scored = min(config.scored, count)
    right = [list(map(is_correct, answers[:scored], references[:scored])) for answers in (before, after)]
    if scored:
        _show_scores(stage, right)
    return SampleScores(scored=scored, right_before=sum(right[0]), right_after=sum(right[1]))


def answer(
    path: str,
    adapter: str | None,
    prompts: Sequence[Sequence[int]],
    tokenizer: Any,
    config: SamplesConfig,
    rows: int | None = None,
) -> list[str]:
    """The greedy completion of every prompt, in batches of prompts of like length; `rows`: those that the model's
    embedding gets.

    Raises ResourceError if one does not fit into memory.
    """
    network, most = _load(path, adapter, rows), config.max_new_tokens
    ends = set(stop_tokens(tokenizer, network.generation_config.eos_token_id))

    def complete(numbers: Sequence[int]) -> list[str]:
        answers = [Answer(tuple(prompts[number]), Sampler(Sampling()), most, ends) for number in numbers]
        generate(network, answers)
        return [tokenizer.decode(one.tokens, skip_special_tokens=True) for one in answers]

    said = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for number, text, error in in_batches(order, complete, config.batch_size):
        if text is None:
            raise ResourceError(f"held-out prompt {number}: {error}", where="samples", fix="lower max_new_tokens")
        said[number] = text
    return said


def _load(path: str, adapter: str | None, rows: int | None) -> Any:
    """The model on its device, with the adapter in its layers."""
    import torch
    from transformers import AutoModelForCausalLM

    from squadron.train.models.attention import keep_cap
    from squadron.train.models.builders import local_folder

    network: Any = AutoModelForCausalLM.from_pretrained(local_folder(path), use_safetensors=True)
    if rows is not None:
        network.resize_token_embeddings(rows)
    if adapter is not None:
        from peft import PeftModel

        network = PeftModel.from_pretrained(network, local_folder(adapter)).get_base_model()
    return keep_cap(network).to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _prompts(
    stage: Stage,
    model: ModelArtifact,
    objective: ObjectiveName,
    settings: DataConfig,
    records: Sequence[Any],
    room: int,
) -> tuple[list[list[int]], list[str]]:
    """The prompts as ids, and the reference answers as text. Of a conversation, its first answer is asked for. Prompts
    that leave no `room` for an answer in what the model reads are left out, and counted."""
    tokenizer = model.load_tokenizer(stage.run.folder)
    encode = encoder(objective, settings.model_copy(update={"train_on": "completion"}), tokenizer)
    prompts, references = [], []
    for record in records:
        row = encode_row(encode, record)[0]
        if objective == "dpo":
            asked, said = row["prompt_ids"], row["chosen_ids"]
        else:
            taught = [label != IGNORED for label in row["labels"]]
            begins = taught.index(True) if True in taught else 0
            asked, said = (
                row["input_ids"][:begins],
                list(takewhile(lambda label: label != IGNORED, row["labels"][begins:])),
            )
        if len(asked) + room > model.context:
            continue
        prompts.append(list(asked))
        references.append(tokenizer.decode(said, skip_special_tokens=True))
    if left_out := len(records) - len(prompts):
        what = f"held-out prompts that leave no room for {room:,} tokens, left out"
        stage.headline(what, f"{left_out:,} of {len(records):,}")
    return prompts, references


def _shown(text: str, most: int = 600) -> str:
    """Text as a reader wants it: without runs of empty lines, and no longer than a paragraph."""
    text = re.sub(r"\s+", lambda run: "\n" if run[0].count("\n") > 1 else run[0], text).strip()
    return (text if len(text) <= most else f"{text[:most]} …") or "(nothing)"


def _show_scores(stage: Stage, right: Sequence[Sequence[bool]]) -> None:
    before, after = (estimate(one, share=True) for one in right)
    rows = [
        ((name, f"{sum(one)} of {len(one)}"), found, ())
        for name, one, found in zip(("before", "after"), right, (before, after), strict=True)
    ]
    stage.show(estimate_table("Right answers", ["model", "right"], "share", rows, form=".1%"))
    change = f"{before.value('.1%')} → {after.value('.1%')}"
    stage.headline(f"right answers, {after.count} held-out problems", change)
    stage.headline("its 95% interval", str(after.interval(".1%")))
    stage.measure(right_answers=after.mean)
