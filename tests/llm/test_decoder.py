"""The decoder: an answer is the same whatever shares its batch, in any order, and whenever each joins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.core.errors import ConfigError
from squadron.llm.backends.batches import in_batches
from squadron.llm.chat import Sampling
from squadron.llm.decoding.continuous import check_rows
from squadron.llm.decoding.decoder import Answer, Decoder
from squadron.llm.decoding.generation import generate
from squadron.llm.decoding.sampling import Sampler
from tests.llm.test_local_models import random_model, random_prompts

LONGEST, ENDS = 24, {7, 8, 9}
KINDS = ["llama", "learned positions", "repetition penalty", "sliding window"]


def make_answer(number: int, prompt: Sequence[int]) -> Answer:
    """Greedy or drawn, one way or another, by its number; all have limits of their own."""
    temperature, top_p = ((0.0, 1.0), (0.8, 0.9), (1.5, 1.0))[number % 3]
    sampling = Sampling(temperature=temperature, top_p=top_p, seed=number)
    penalties: tuple[float, float] = (0.7, -0.3) if number % 4 == 3 else (0.0, 0.0)
    bias = {11: 3.0} if number % 5 == 4 else None
    return Answer(tuple(prompt), Sampler(sampling, bias, *penalties), 1 + number * 5 % LONGEST, ENDS)


def decode(model: Any, answers: Sequence[Answer], steps: Sequence[int]) -> None:
    """Each joins at its step, or when there is nothing else to do."""
    import torch

    decoder, waiting, now = Decoder(model), sorted(zip(steps, range(len(answers)), strict=True)), 0
    with torch.inference_mode():
        while waiting or decoder.answers:
            due = [place for step, place in waiting if step <= now]
            if due or decoder.answers:
                decoder.step([answers[place] for place in due])
            waiting, now = waiting[len(due) :], now + 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_the_same_whatever_shares_its_batch(kind: str) -> None:
    model, prompts = random_model(kind), random_prompts(9)
    alone = [make_answer(*one) for one in enumerate(prompts)]
    for one in alone:
        generate(model, [one])
    assert len({one.finish_reason for one in alone}) == 2 and len({len(one.tokens) for one in alone}) > 4

    @settings(deadline=None, max_examples=12, derandomize=True)
    @given(
        st.permutations(range(len(prompts))),
        st.lists(st.integers(0, 30), min_size=len(prompts), max_size=len(prompts)) | st.just([0] * len(prompts)),
    )
    def check(order: list[int], steps: list[int]) -> None:
        together = {number: make_answer(number, prompts[number]) for number in order}
        decode(model, list(together.values()), steps)
        for number, one in enumerate(alone):
            assert (together[number].tokens, together[number].finish_reason) == (one.tokens, one.finish_reason)

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_are_those_of_transformers_whenever_they_join(kind: str) -> None:
    import torch

    model, prompts = random_model(kind), random_prompts(9)
    answers = [Answer(tuple(prompt), Sampler(Sampling()), LONGEST) for prompt in prompts]
    decode(model, answers, [number * 7 % 20 for number in range(len(prompts))])
    for one in answers:
        ids = torch.tensor([one.prompt])
        whole = model.generate(ids, max_new_tokens=LONGEST, do_sample=False)[0, ids.shape[1] :]
        assert one.tokens == whole.tolist()


def test_what_one_answer_cannot_take_is_no_matter_of_the_others() -> None:
    def refuse(tokens: Sequence[int]) -> bool:
        if len(tokens) == 3:
            raise ValueError("no more\nof this")
        return False

    model, prompts = random_model("llama"), random_prompts(3)
    answers = [Answer(tuple(prompt), Sampler(Sampling()), 8) for prompt in prompts]
    answers[1].stopped = refuse
    generate(model, answers)
    assert answers[1].finish_reason == "error" and answers[1].error == "ValueError: no more"
    assert {len(one.tokens) for place, one in enumerate(answers) if place != 1} == {8}


def test_logits_that_cannot_be_adjusted_end_one_answer_alone() -> None:
    model, prompts = random_model("llama"), random_prompts(3)
    answers = [Answer(tuple(prompt), Sampler(Sampling()), 8) for prompt in prompts]
    answers[1].sampler = Sampler(Sampling(), bias={10**9: 1.0})  # there is no such token
    generate(model, answers)
    assert answers[1].finish_reason == "error" and answers[1].error.startswith("IndexError")
    assert {len(one.tokens) for place, one in enumerate(answers) if place != 1} == {8}


@pytest.mark.parametrize("kind", ["no positions", "convolutions", "no repetition"])
def test_a_model_that_answers_cannot_join_is_refused_before_it_is_served(kind: str) -> None:
    with pytest.raises(ConfigError, match="cannot share a batch"):
        check_rows(random_model(kind), "its folder")


@pytest.mark.parametrize("kind", ["llama", "no positions"])
def test_only_an_answers_own_ends_end_it(kind: str) -> None:
    """And none that the model's settings name besides."""
    model, prompts = random_model(kind), random_prompts(4)
    first, second = ([Answer(tuple(prompt), Sampler(Sampling()), 12) for prompt in prompts] for _ in range(2))
    generate(model, first)
    model.generation_config.eos_token_id = first[0].tokens[3]
    model.generation_config.pad_token_id = 0
    generate(model, second)
    assert [one.tokens for one in second] == [one.tokens for one in first]


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 8), st.integers(1, 20))
def test_batches_are_halved_until_they_fit_into_memory(sizes: list[int], batch_size: int, memory: int) -> None:
    import torch

    computed: list[int] = []

    def compute(batch: Sequence[tuple[int, int]]) -> list[int]:
        if sum(size for _, size in batch) > memory:
            raise torch.OutOfMemoryError("tried to allocate\nand so on")
        computed.append(len(batch))
        return [10 * size for _, size in batch]

    rows = list(enumerate(sizes))
    found = list(in_batches(rows, compute, batch_size))
    assert [row for row, _, _ in found] == rows
    for (_, size), value, error in found:
        expected = (10 * size, "") if size <= memory else (None, "out of memory: tried to allocate")
        assert (value, error) == expected
    assert max(computed, default=0) <= batch_size
