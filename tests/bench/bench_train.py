"""Tokens a second of Squadron's training loop beside a bare DeepSpeed loop and TRL's SFTTrainer, in one process.

    python tests/bench/bench_train.py                 # three alternating runs a side
    python tests/bench/bench_train.py --repeats 5

A Llama of 10M parameters with random weights learns GSM8K, tokenised by a BPE of its own and packed. All sides get the
same texts, tokens of a row and rows of a step, and no activation checkpointing. The bare loop, `deepspeed`, runs
transformers' own attention and loss on the same batches, made beforehand; in `same model` it has Squadron's attention,
so that what differs is the loop and the loss. TRL packs by its default strategy. On a GPU all run in bf16, and
Qwen2.5-7B with random weights and LoRA of rank 16 follows, with its memory beside the planned one.
The bars: 0.97 times either bare loop and 1.0 times TRL; with Qwen2.5-7B 1.1 times TRL, and at most 10 % between the
measured peak and the plan.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import gzip
import importlib.util
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from squadron.core.folder import Folder
from squadron.train.batching.batches import Row, RowSource
from squadron.train.engine import deepspeed_config, quiet_deepspeed
from squadron.train.models.builders import FromConfig, Pretrained, attention
from squadron.train.objectives.language import SupervisedFineTuning
from squadron.train.planning.cost import GPUS, step_flops
from squadron.train.planning.memory import MemoryPlan, plan_memory, read_shapes
from squadron.train.spec import LoraSettings, OptimizerConfig, ScheduleConfig, TrainSpec
from squadron.train.worker import Training, train

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "math" / "gsm8k_train.jsonl.gz"
CUDA = torch.cuda.is_available()
VOCABULARY, LARGE = 4096, "Qwen/Qwen2.5-7B"
BARS = {"deepspeed": 0.97, "same model": 0.97, "trl": 1.0}
LARGE_BARS, PLAN_BAR = {"trl": 1.1}, 0.1
WARM_UP, MEASURED = 2, 8  # steps; one more follows, at whose end Squadron saves
SPEC = TrainSpec(
    steps=WARM_UP + MEASURED + 1,
    batch_size=4,
    micro_batch_size=2,
    max_length=512,
    packing=True,
    precision="bf16" if CUDA else "fp32",
    optimizer=OptimizerConfig(learning_rate=3e-4),
    schedule=ScheduleConfig(kind="constant", warmup_ratio=0.0),
)
LARGE_SPEC = SPEC.model_copy(update={"micro_batch_size": 1, "max_length": 4096, "loss_chunk": 1024})
LORA = LoraSettings(rank=16)
Build = Callable[[], torch.nn.Module]


class Stopwatch:
    """When each step ended and how many tokens it had, padding left out."""

    def __init__(self) -> None:
        self.ticks: list[float] = []
        self.tokens: list[float] = []

    def tick(self, tokens: float) -> None:
        if CUDA:
            torch.cuda.synchronize()
        self.ticks.append(time.perf_counter())
        self.tokens.append(tokens)

    def rate(self) -> float:
        """Tokens a second between the warm-up and the last step."""
        return sum(self.tokens[WARM_UP:-1]) / (self.ticks[-2] - self.ticks[WARM_UP - 1])


def read_texts() -> list[str]:
    """GSM8K's questions with their answers, or made-up sums where the file is missing."""
    if DATA.exists():
        with gzip.open(DATA, "rt") as lines:
            return [f"{row['question']}\n{row['answer']}" for row in map(json.loads, lines)]
    print(f"{DATA} is missing: sums instead", flush=True)
    draw = np.random.default_rng(0)
    drawn = [draw.integers(1, 1000, int(draw.integers(10, 60))) for _ in range(7000)]
    return [f"What is {' plus '.join(map(str, terms))}?\nIt is {terms.sum()}." for terms in drawn]


def make_tokenizer(texts: list[str]) -> Any:
    """A byte-level BPE of these texts, as transformers' tokenizer."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    inner = ByteLevelBPETokenizer()
    inner.train_from_iterator(texts, VOCABULARY, special_tokens=["<pad>", "</s>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner._tokenizer, pad_token="<pad>", eos_token="</s>")


def make_rows(texts: list[str], tokenizer: Any, longest: int) -> list[dict[str, Any]]:
    """One row a text, every token of which is learnt; texts of more than `longest` tokens are left out."""
    sequences = [np.array([*ids, tokenizer.eos_token_id]) for ids in tokenizer(texts)["input_ids"]]
    return [{"input_ids": ids, "labels": ids} for ids in sequences if len(ids) <= longest]


def small_model(implementation: str) -> torch.nn.Module:
    """A Llama of 10M parameters with this attention."""
    attention.register()
    torch.manual_seed(0)
    model: Any = FromConfig(VOCABULARY, layers=6, intermediate_size=1408, tie_embeddings=False)()
    model.set_attn_implementation(implementation)
    return model


def large_config() -> Any:
    from squadron.train.models.architectures import find_architecture

    return find_architecture(LARGE)


def large_model(implementation: str, lora: LoraSettings | None) -> torch.nn.Module:
    """Qwen2.5-7B with random bf16 weights, made on the GPU, and adapters if asked for."""
    from transformers import AutoModelForCausalLM

    attention.register()
    torch.manual_seed(0)
    with torch.device("cuda"):
        model: Any = AutoModelForCausalLM.from_config(
            large_config(), dtype=torch.bfloat16, attn_implementation=implementation
        )
    return Pretrained(LARGE, precision="bf16", lora=lora).adapted(model)


def fastest_attention(otherwise: str) -> str:
    """flash-attn where it can run, else another."""
    return "flash_attention_2" if CUDA and importlib.util.find_spec("flash_attn") else otherwise


@contextlib.contextmanager
def only_worker() -> Iterator[None]:
    """The environment of a group of one. TRL must not see it: it would take it for a launch on several GPUs."""
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    os.environ.update(place)
    try:
        yield
    finally:
        for name in place:
            os.environ.pop(name, None)
        gc.collect()


def run_squadron(build: Build, rows: list[dict[str, Any]], spec: TrainSpec) -> float:
    """Squadron's worker from its first step to its last, without Ray."""
    watch = Stopwatch()
    source = RowSource(rows, lambda row: len(row["input_ids"]))
    with only_worker(), tempfile.TemporaryDirectory() as folder:
        objective = SupervisedFineTuning(spec.loss_chunk)
        training = Training(build, objective, source, [], spec, Folder(folder), "bench")
        device = torch.device("cuda" if CUDA else "cpu")
        train(training, 0, 1, device, lambda step, metrics: watch.tick(metrics["tokens"]))
    return watch.rate()


def packed_batch(rows: list[Row]) -> dict[str, torch.Tensor]:
    """Rows end to end, as transformers' own models take them."""
    ids = np.concatenate([row["input_ids"] for row in rows])
    places = np.concatenate([np.arange(len(row["input_ids"])) for row in rows])
    named = {"input_ids": ids, "position_ids": places, "labels": np.where(places == 0, -100, ids)}
    bounds = torch.as_tensor([*np.flatnonzero(places == 0), len(ids)], dtype=torch.int32)
    return {name: torch.as_tensor(values)[None] for name, values in named.items()} | {"cu_seq_lens_q": bounds}


def run_deepspeed(build: Build, rows: list[dict[str, Any]], spec: TrainSpec) -> float:
    """DeepSpeed around transformers' model and loss, on batches made beforehand."""
    watch, device = Stopwatch(), torch.device("cuda" if CUDA else "cpu")
    steps = RowSource(rows, lambda row: len(row["input_ids"])).read(spec, 0, 1, 0)
    batches = [[packed_batch(micro) for micro in next(steps)] for _ in range(spec.steps or 0)]
    with only_worker():
        deepspeed, model, chosen = quiet_deepspeed(CUDA), build(), spec.optimizer
        common: dict[str, Any] = {"betas": chosen.betas, "eps": chosen.epsilon, "weight_decay": chosen.weight_decay}
        optimizer = torch.optim.AdamW(model.parameters(), chosen.learning_rate, fused=CUDA or None, **common)
        config = deepspeed_config(spec, 1, CUDA)
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
        for step in batches:
            for batch in step:
                loss = engine(**{name: t.to(device) for name, t in batch.items()}, use_cache=False).loss
                engine.backward(loss)
                engine.step()
            watch.tick(sum(batch["input_ids"].numel() for batch in step))
        engine.destroy()
    return watch.rate()


def trl_trainer(model: Any, rows: list[dict[str, Any]], spec: TrainSpec, tokenizer: Any, lora: Any, folder: str) -> Any:
    """TRL's trainer with its defaults, but for what makes the work the same."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        output_dir=folder,
        packing=True,
        max_length=spec.max_length,
        per_device_train_batch_size=spec.micro_batch_size,
        gradient_accumulation_steps=spec.accumulation(1),
        max_steps=spec.steps or -1,
        learning_rate=spec.optimizer.learning_rate,
        gradient_checkpointing=False,
        bf16=CUDA,
        use_cpu=not CUDA,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    data = Dataset.from_list([{name: row[name].tolist() for name in row} for row in rows])
    return SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer, peft_config=lora)


def run_trl(
    build: Build, rows: list[dict[str, Any]], spec: TrainSpec, tokenizer: Any, lora: Any, facts: dict[str, str]
) -> float:
    """TRL's trainer, its tokens counted as they leave its collator."""
    from transformers import TrainerCallback

    watch, counts = Stopwatch(), list[int]()

    class Ticking(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            micro = spec.accumulation(1)
            done = len(watch.ticks) * micro
            watch.tick(sum(counts[done : done + micro]))

    with tempfile.TemporaryDirectory() as folder:
        trainer = trl_trainer(build(), rows, spec, tokenizer, lora, folder)
        facts.update(attention=trainer.model.config._attn_implementation, leak=f"{leak(trainer):.1e}")
        collate = trainer.data_collator

        def counting(examples: list[Any]) -> dict[str, Any]:
            batch: dict[str, Any] = collate(examples)
            counts.append(
                int(batch["attention_mask"].sum() if "attention_mask" in batch else batch["input_ids"].numel())
            )
            return batch

        trainer.data_collator = counting
        trainer.add_callback(Ticking())
        with contextlib.redirect_stdout(sys.stderr):
            trainer.train()
    return watch.rate()


def leak(trainer: Any) -> float:
    """How much the logits of a sequence's first token in one of TRL's packed batches differ from those it has alone,
    over their own size: rounding if sequences of a row do not see each other."""
    packed = next(row for row in trainer.train_dataset if len(row["seq_lengths"]) > 1)
    model = trainer.model.to(trainer.args.device).eval()
    batch = trainer._prepare_inputs(trainer.data_collator([packed]))
    first = int(batch["cu_seq_lens_q"][1])
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=CUDA):
        together = model(**inputs, use_cache=False).logits[0, first]
        alone = model(input_ids=batch["input_ids"][:, first : first + 2], use_cache=False).logits[0, 0]
    model.train()
    return float((together - alone).norm() / alone.norm())


def compare(
    sides: dict[str, Callable[[], float]], bars: dict[str, float], repeats: int
) -> tuple[dict[str, float], bool]:
    """Run the sides in turn and print their medians; these, and whether `squadron` meets every bar."""
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, run in sides.items():
            rates[side].append(run())
    medians = {side: statistics.median(values) for side, values in rates.items()}
    print(f"{'':12}{'tokens/s':>10}{'best':>10}   runs")
    for side, values in rates.items():
        runs = " ".join(f"{value:.0f}" for value in values)
        print(f"{side:12}{medians[side]:10.0f}{max(values):10.0f}   {runs}", flush=True)
    ratios = {side: medians["squadron"] / medians[side] for side in bars}
    for side, ratio in ratios.items():
        met = "met" if ratio >= bars[side] else "missed"
        print(f"squadron over {side}: {ratio:.3f}, bar {bars[side]}: {met}", flush=True)
    return medians, all(ratio >= bars[side] for side, ratio in ratios.items())


def describe_rows(rows: list[dict[str, Any]], spec: TrainSpec) -> str:
    source = RowSource(rows, lambda row: len(row["input_ids"]))
    bins, tokens = len(source.bins(spec)), sum(len(row["input_ids"]) for row in rows)
    empty = 1 - tokens / (bins * int(spec.max_length or 1))
    step = f"{spec.accumulation(1)} micro-batches of {spec.micro_batch_size} x {spec.max_length} tokens"
    return f"{len(rows)} texts, {tokens} tokens in {bins} packed rows ({empty:.2%} of them unfilled), {step} a step"


def bench_small(texts: list[str], tokenizer: Any, repeats: int) -> bool:
    """A Llama of 10M parameters beside DeepSpeed alone and TRL."""
    rows, facts = make_rows(texts, tokenizer, int(SPEC.max_length or 0)), dict[str, str]()
    parameters = sum(weight.numel() for weight in small_model("sdpa").parameters())
    print(f"\nLlama, {parameters / 1e6:.1f}M parameters, {SPEC.precision}, {torch.get_num_threads()} threads")
    print(f"{describe_rows(rows, SPEC)}; no side computes padding", flush=True)
    mine, theirs = (lambda: small_model(fastest_attention("packed"))), (lambda: small_model("sdpa"))
    sides = {
        "squadron": lambda: run_squadron(mine, rows, SPEC),
        "deepspeed": lambda: run_deepspeed(theirs, rows, SPEC),
        "same model": lambda: run_deepspeed(mine, rows, SPEC),
        "trl": lambda: run_trl(lambda: small_model(fastest_attention("sdpa")), rows, SPEC, tokenizer, None, facts),
    }
    _, met = compare(sides, BARS, repeats)
    print_trl(facts)
    return met


def bench_large(texts: list[str], tokenizer: Any, repeats: int) -> bool:
    """Qwen2.5-7B with LoRA beside TRL, and its memory beside the plan."""
    from squadron.train.models.builders import lora_config

    if not CUDA:
        print(f"\n{LARGE}: no GPU here: skipped")
        return True
    rows = make_rows(texts, tokenizer, int(LARGE_SPEC.max_length or 0))
    print(f"\n{LARGE}, LoRA of rank {LORA.rank}, bf16\n{describe_rows(rows, LARGE_SPEC)}", flush=True)
    facts, peaks = dict[str, str](), dict[str, float]()
    mine, theirs = fastest_attention("packed"), fastest_attention("sdpa")
    ours: dict[str, Any] = {"build": lambda: large_model(mine, LORA), "rows": rows, "spec": LARGE_SPEC}
    others = {**ours, "build": lambda: large_model(theirs, None), "lora": lora_config(LORA, "causal")}
    sides = {
        "squadron": lambda: with_peak("squadron", lambda: run_squadron(**ours), peaks),
        "trl": lambda: with_peak("trl", lambda: run_trl(**others, tokenizer=tokenizer, facts=facts), peaks),
    }
    medians, met = compare(sides, LARGE_BARS, repeats)
    print(f"Squadron's attention: {mine}")
    print_trl(facts)
    print_utilisation(medians, rows)
    plan = plan_memory(read_shapes(large_config()), LARGE_SPEC, 1, LORA, int(LARGE_SPEC.max_length or 0))
    return print_memory(peaks, plan) and met


def print_trl(facts: dict[str, str]) -> None:
    print(f"TRL's attention: {facts['attention']}; what packed sequences see of each other: {facts['leak']} of a logit")


def with_peak(side: str, run: Callable[[], float], peaks: dict[str, float]) -> float:
    """Run, and note the most bytes of the GPU that were allocated at once."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    rate = run()
    peaks[side] = max(torch.cuda.max_memory_allocated(), peaks.get(side, 0))
    return rate


def print_utilisation(rates: dict[str, float], rows: list[dict[str, Any]]) -> None:
    """Model FLOPs utilisation: the model's own operations a second over the card's peak."""
    lengths = np.array([len(row["input_ids"]) for row in rows], float)
    seen = int((lengths**2).sum() / lengths.sum())  # the length of the sequence that a token is in, on average
    name = torch.cuda.get_device_name()
    cards = [card for card in GPUS if all(part in name for part in card.split("-"))]
    if not cards:
        print(f"{name}: peak unknown, no MFU")
        return
    operations = step_flops(read_shapes(large_config()), 1, seen, LORA, activation_checkpointing=False).model
    for side, rate in rates.items():
        print(f"{side}: MFU {rate * operations / (GPUS[cards[0]].tflops * 1e12):.1%} of {cards[0]}")


def print_memory(peaks: dict[str, float], plan: MemoryPlan) -> bool:
    """Peaks beside the plan, without the CUDA context, which PyTorch does not count."""
    planned = plan.total - plan.context
    for side, peak in peaks.items():
        print(f"{side}: peak {peak / 1e9:.1f} GB")
    error = planned / peaks["squadron"] - 1
    met = abs(error) <= PLAN_BAR
    print(f"planned {planned / 1e9:.1f} GB: {error:+.1%}, bar {PLAN_BAR:.0%}: {'met' if met else 'missed'}")
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # no warning when TRL forks
    torch.set_num_threads(os.cpu_count() or 1)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        meeting_place = f"file://{folder}/group"
        torch.distributed.init_process_group("nccl" if CUDA else "gloo", meeting_place, rank=0, world_size=1)
        texts = read_texts()
        tokenizer = make_tokenizer(texts)
        met = [bench(texts, tokenizer, options.repeats) for bench in (bench_small, bench_large)]
        torch.distributed.destroy_process_group()
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
