"""Clients share an engine: nobody is stalled or padded by another, and memory is bounded; answers stay the same."""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from squadron.llm.backends.hf import load_model
from squadron.llm.chat import Sampling
from squadron.llm.decoding.continuous import Engine, Generation, Piece
from squadron.llm.decoding.decoder import Answer, Decoder
from squadron.llm.decoding.sampling import Sampler
from squadron.llm.decoding.schedule import Batch, arrange
from squadron.llm.settings import HfModel
from tests.llm.tiny import store_tiny_chat

CONTEXT = 1100


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("models") / "chat"
    words = [f"say {number} words" for number in range(40)]
    return load_model(HfModel(name="tiny", path=store_tiny_chat(folder, words, context=CONTEXT)))


class Asker:
    """Asks an engine, and notes in which order answers end."""

    def __init__(self, loaded: Any, **settings: Any) -> None:
        self.ended: queue.SimpleQueue[tuple[int, Piece]] = queue.SimpleQueue()
        self.engine = Engine(loaded.model, loaded.tokenizer, set(), loaded.context, **settings)

    def ask(self, number: int, prompt: list[int], most: int, client: str = "") -> None:
        def emit(piece: Piece) -> None:
            self.ended.put((number, piece))

        sampling = Sampling(max_tokens=most, temperature=float(number % 2), seed=number)
        self.engine.submit(Generation(tuple(prompt), sampling, emit, client=client))

    def answers(self, count: int) -> dict[int, Piece]:
        return dict(self.ended.get(timeout=120) for _ in range(count))


@pytest.fixture
def engines() -> Iterator[list[Asker]]:
    made: list[Asker] = []
    yield made
    for one in made:
        one.engine.close()


def prompt(number: int, length: int) -> list[int]:
    return [2 + (number * 7 + place * place) % 200 for place in range(length)]


QUESTIONS = [(number, prompt(number, length), 12) for number, length in enumerate((5, 300, 9, 700, 40, 5, 1000))]


def test_answers_are_the_same_in_pieces_in_any_company_and_with_little_memory(
    loaded: Any, engines: list[Asker]
) -> None:
    texts = []
    for settings in ({}, {"cells": CONTEXT}, {"max_rows": 1}):
        asker = Asker(loaded, **settings)
        engines.append(asker)
        for number, ids, most in QUESTIONS:
            asker.ask(number, ids, most, client=str(number % 3))
        found = asker.answers(len(QUESTIONS))
        texts.append({number: (piece.text, piece.finish_reason) for number, piece in found.items()})
    assert texts[0] == texts[1] == texts[2]
    assert {reason for _, reason in texts[0].values()} == {"length"}


def test_requests_that_come_while_others_are_read_are_all_answered(loaded: Any, engines: list[Asker]) -> None:
    """Whoever asks for them; equal requests get equal answers."""
    draw = random.Random(0)
    asker = Asker(loaded, max_rows=16)
    engines.append(asker)
    asked = [(number, draw.choice((0, 0, 1, 2, 3)), draw.choice("ab")) for number in range(40)]
    for number, kind, client in asked:
        asker.ask(2 * number, prompt(kind, (20, 5, 300, 480)[kind]), (8, 1, 8, 20)[kind], client)
        time.sleep(draw.choice((0, 0, 0.01)))
    found = asker.answers(len(asked))
    assert not any(piece.error for piece in found.values())
    texts = {kind: {found[2 * number].text for number, its, _ in asked if its == kind} for kind in range(4)}
    assert all(len(several) == 1 for several in texts.values())


def test_an_engine_that_fails_answers_what_comes_later(loaded: Any, engines: list[Asker]) -> None:
    asker = Asker(loaded)
    engines.append(asker)
    nobody: Any = []  # a client that no table can hold
    asker.ask(1, prompt(1, 5), 8, client=nobody)
    asker.ask(2, prompt(2, 5), 8)
    assert not asker.answers(1)[2].error


@dataclass(eq=False)
class Asked:
    """An answer in the making, and whom it is for."""

    client: str
    answer: Answer
    cancelled: bool = False


def test_a_batch_is_joined_when_its_prompts_have_been_read(loaded: Any) -> None:
    import torch

    def batch(client: str, number: int) -> Batch:
        return Batch(Decoder(loaded.model), [Asked(client, Answer((2 + number,), Sampler(Sampling()), 20))])

    def step(one: Batch) -> None:
        with torch.inference_mode():
            one.decoder.step([] if one.decoder.answers else [asked.answer for asked in one.streams])

    batches = [batch("a", number) for number in range(3)]
    for one in batches[:2]:
        step(one)
    arranged = arrange(batches)
    assert sorted(len(one.streams) for one in arranged) == [1, 2]
    for one in arranged:
        step(one)
    (together,) = arrange(arranged)
    step(together)
    assert sorted(len(asked.answer.tokens) for asked in together.streams) == [2, 3, 3]


def test_a_neighbour_is_answered_before_a_client_with_many_answers(loaded: Any, engines: list[Asker]) -> None:
    asker = Asker(loaded, max_rows=8)
    engines.append(asker)
    for number in range(30):
        asker.ask(number, prompt(number, 600), 480, client="many")
    time.sleep(0.2)
    asker.ask(100, prompt(100, 20), 20, client="one")
    first, _ = asker.ended.get(timeout=120)
    assert first == 100


def test_what_cannot_be_computed_is_nobody_elses_error(loaded: Any, engines: list[Asker]) -> None:
    asker = Asker(loaded)
    engines.append(asker)
    for number in range(4):
        asker.ask(number, [10**6] if number == 2 else prompt(number, 1), 8)
    found = asker.answers(4)
    assert {number for number, piece in found.items() if piece.error} == {2}
