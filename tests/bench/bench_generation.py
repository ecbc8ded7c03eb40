"""Answers' tokens per second of a small model on one core: many conversations at once, one at a time, and by
transformers' `generate`. Bars: twice the rate of `generate`, three times where six answers share a conversation.

A Llama of 4 layers, 128 wide, with random weights; prompts of about 80 tokens, answers of up to 80, which end after
any token with a chance of about 1 in 30. Rates are of processor time, since all run in one thread; medians of runs that
take turns. That the answers of all are the same is checked.

python tests/bench/bench_generation.py
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from squadron.llm.backends.hf import HfChat
from squadron.llm.chat import ChatRequest, Sampling, user
from squadron.llm.decoding.sampling import Sampler, score
from squadron.llm.settings import HfModel
from squadron.train.models.builders import FromConfig
from squadron.train.text.tokenizer import train_tokenizer

REQUESTS, BATCH, LONGEST, RUNS = 192, 32, 80, 3
BARS = {1: 2.0, 6: 3.0}
"""By how many answers a conversation gets: times the rate of transformers' `generate`."""

Answers = dict[str, str]


def make_model(folder: Path) -> None:
    """Random weights, but for a constant in all embeddings that makes an answer's end as likely after any token."""
    texts = [f"{random.Random(n).randbytes(8).hex()} what is {n} times 7? say the steps first" for n in range(800)]
    vocabulary = train_tokenizer(texts, 512, folder)
    torch.manual_seed(0)
    size: dict[str, Any] = {"hidden_size": 128, "layers": 4, "intermediate_size": 384, "tie_embeddings": False}
    special = {"pad_token_id": 0, "eos_token_id": 1}
    model: Any = FromConfig(vocabulary=vocabulary, special_tokens=special, **size)()
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.lm_head.weight[1, 0] = math.log(vocabulary / 30) / 7
    model.save_pretrained(folder)


def make_requests(answers_each: int) -> list[ChatRequest]:
    drawn = random.Random(0)
    requests = []
    for number in range(REQUESTS // answers_each):
        words = [drawn.choice(["what", "is", "times", "steps", "say", "first"]) for _ in range(drawn.randint(5, 15))]
        question = " ".join([*(str(drawn.randrange(1000)) for _ in range(15)), *words])
        for answer in range(answers_each):
            sampling = Sampling(max_tokens=LONGEST, temperature=1.0, seed=100 * number + answer)
            requests.append(ChatRequest(f"{number}-{answer}", user(question), sampling))
    return requests


def by_chat(model: HfChat, requests: list[ChatRequest]) -> Answers:
    return {reply.key: reply.text for reply in model.chat(requests)}


def by_transformers(chat: HfChat, requests: list[ChatRequest]) -> Answers:
    """In batches by length, with the same noise, as one would call it."""
    model, tokenizer = chat._model, chat._tokenizer
    answers: Answers = {}
    ordered = sorted(((request, chat._encode(request)) for request in requests), key=lambda pair: len(pair[1]))
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        padded = tokenizer.pad({"input_ids": [ids for _, ids in batch]}, padding_side="left", return_tensors="pt")
        samplers = [Sampler(request.sampling) for request, _ in batch]
        out = model.generate(
            input_ids=padded["input_ids"],
            attention_mask=padded["attention_mask"],
            max_new_tokens=LONGEST,
            do_sample=False,
            logits_processor=[lambda _, logits, samplers=samplers: score(logits, samplers)],
        )[:, padded["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(out, skip_special_tokens=True)
        answers |= {request.key: text for (request, _), text in zip(batch, texts, strict=True)}
    return answers


def compare(folder: Path, answers_each: int) -> float:
    """How many times as fast as transformers' `generate` a batch is; prints all rates."""
    requests = make_requests(answers_each)
    settings = HfModel(name="small", path=str(folder), batch_size=BATCH)
    with HfChat(settings) as many, HfChat(settings.model_copy(update={"batch_size": 1})) as one:
        ways: dict[str, Callable[[], Answers]] = {
            f"{BATCH} at once": lambda: by_chat(many, requests),
            "one at a time": lambda: by_chat(one, requests),
            "transformers' generate": lambda: by_transformers(many, requests),
        }
        tokens = sum(reply.completion_tokens for reply in many.chat(requests))
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        answers: dict[str, Answers] = {}
        for _ in range(RUNS):
            for way, run in ways.items():
                started = time.process_time()
                answers[way] = run()
                seconds[way].append(time.process_time() - started)
    first, *others = answers.values()
    assert all(other == first for other in others), "the answers differ"
    rates = {way: tokens / statistics.median(taken) for way, taken in seconds.items()}
    print(f"{len(requests)} answers, {answers_each} to a conversation, {tokens / len(requests):.0f} tokens each")
    for way, rate in rates.items():
        print(f"  {way:24} {rate:6.0f} tokens/s")
    return rates[f"{BATCH} at once"] / rates["transformers' generate"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        make_model(Path(scratch))
        times = {answers_each: compare(Path(scratch), answers_each) for answers_each in BARS}
    for answers_each, bar in BARS.items():
        print(
            f"{answers_each} to a conversation: {times[answers_each]:.1f} times transformers' generate (bar {bar:.1f})"
        )
    sys.exit(any(times[answers_each] < bar for answers_each, bar in BARS.items()))
