"""Served reward models and classifiers score rows as training read them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from squadron.core.errors import InputError
from squadron.llm.chat import ModelUnavailable
from squadron.methods.finetune.config import DataConfig, ObjectiveName
from squadron.methods.finetune.encoding import encoder
from squadron.methods.finetune.scoring import KINDS, TrainedScorer
from squadron.serve.scoring import ScoredRow, ScoreRequest, ScoreServer
from squadron.train.models.builders import Pretrained
from squadron.train.objectives import reward
from tests.llm.tiny import store_tiny_chat

DATA = DataConfig(prompt_format="Q: {prompt}\nA: ")
CLASSES = ("cold", "warm", 3)
PAIRS = [("what is six", "it is seven " * n + "so") for n in range(1, 6)]
SOLUTIONS = [("what is six", tuple("it is seven so" for _ in range(n))) for n in range(1, 5)]
TEXTS = ["it is seven " * n for n in range(1, 6)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ObjectiveName], str]:
    """Stores a model with the head of an objective, as an export of a run would be, and returns its folder."""
    folder = tmp_path_factory.mktemp("models")
    base = store_tiny_chat(folder / "base", ["what is six", "it is seven so"])
    heads: dict[str, Any] = {
        "reward": {"head": "sequence"},
        "process_reward": {"head": "token", "labels": 2, "label_names": ("wrong", "right")},
        "classification": {"head": "sequence", "labels": 3, "label_names": tuple(map(str, CLASSES))},
    }

    def make(objective: ObjectiveName) -> str:
        from transformers import AutoTokenizer

        torch.manual_seed(1)
        # Padding that is the end of texts too, as of many published models.
        model = Pretrained(base, pad_token_id=1, **heads[objective])()
        with torch.no_grad():
            model.score.weight.mul_(20)  # far enough from each other to tell answers apart
        model.save_pretrained(folder / objective)
        AutoTokenizer.from_pretrained(base).save_pretrained(folder / objective)
        return str(folder / objective)

    return make


def served(path: str, objective: ObjectiveName) -> ScoreServer:
    return ScoreServer("m", partial(TrainedScorer, path, objective, DATA, CLASSES, batch_size=3))


def score(server: ScoreServer, *rows: dict[str, Any]) -> Any:
    answer = server.score(ScoreRequest(model="m", rows=tuple(ScoredRow(**row) for row in rows)))
    assert [one.index for one in answer.data] == list(range(len(rows)))
    return answer.data


def in_training(path: str, objective: ObjectiveName, loss: Any, records: list[dict[str, Any]]) -> tuple[Any, Any]:
    """The batch that training makes of these records, and the model's logits of it."""
    from transformers import AutoTokenizer

    from squadron.methods.finetune.training import HEADS
    from squadron.train.models.builders import auto_class

    encode = encoder(objective, DATA, AutoTokenizer.from_pretrained(path), CLASSES)
    batch = loss.collate([row for record in records for row in encode(record)])
    model = auto_class(HEADS[objective]).from_pretrained(path).eval()
    with torch.inference_mode():
        return batch, model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def test_responses_get_the_rewards_that_training_compares(store: Callable[[ObjectiveName], str]) -> None:
    path = store("reward")
    records = [{"prompt": p, "chosen": r, "rejected": r + " no"} for p, r in PAIRS]
    _, logits = in_training(path, "reward", reward.OutcomeReward(1), records)
    found = score(served(path, "reward"), *({"instruction": p, "response": r} for p, r in PAIRS))
    assert [one.score for one in found] == pytest.approx(logits[: len(PAIRS), 0].tolist(), abs=1e-5)
    assert len({round(one.score, 5) for one in found}) == len(PAIRS)


def test_steps_get_the_probabilities_that_training_fits(store: Callable[[ObjectiveName], str]) -> None:
    path = store("process_reward")
    records = [{"prompt": p, "steps": steps, "labels": [1] * len(steps)} for p, steps in SOLUTIONS]
    batch, logits = in_training(path, "process_reward", reward.ProcessReward(1), records)
    expected = logits.softmax(-1)[..., 1][batch["labels"] == 1].split([len(steps) for _, steps in SOLUTIONS])
    found = score(served(path, "process_reward"), *({"instruction": p, "steps": steps} for p, steps in SOLUTIONS))
    for one, right in zip(found, expected, strict=True):
        assert list(one.steps) == pytest.approx(right.tolist(), abs=1e-5)
        assert one.score == pytest.approx(right.prod().item(), abs=1e-5)


def test_texts_get_the_probabilities_of_their_classes(store: Callable[[ObjectiveName], str]) -> None:
    path = store("classification")
    records = [{"text": text, "label": "warm"} for text in TEXTS]
    _, logits = in_training(path, "classification", reward.Classification(1), records)
    found = score(served(path, "classification"), *({"text": text} for text in TEXTS))
    for one, row in zip(found, logits.softmax(-1), strict=True):
        assert list(one.probabilities) == ["cold", "warm", "3"]
        assert list(one.probabilities.values()) == pytest.approx(row.tolist(), abs=1e-5)
        assert one.label == str(CLASSES[int(row.argmax())]) and one.score == pytest.approx(row.max().item(), abs=1e-5)


def test_what_cannot_be_scored_is_said(store: Callable[[ObjectiveName], str], tmp_path: Path) -> None:
    server = served(store("reward"), "reward")
    good, long = ({"instruction": "what is six", "response": text} for text in ("seven", "seven " * 200))
    scored, refused = score(server, good, long)
    assert scored.score is not None and refused.score is None and "the reward model reads 96" in refused.error
    with pytest.raises(InputError, match=r"rows\.1: m scores rows that have instruction and response"):
        score(server, good, {"text": "a text"})
    for row in ({}, {"instruction": "a"}, {"text": "a", "response": "b"}, {"steps": ("a",)}):
        with pytest.raises(ValueError, match="instruction and response, or"):
            ScoredRow(**row)
    cut = shutil.copytree(store("reward"), tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelUnavailable, match="cut"):
        served(str(cut), "reward")
    with pytest.raises(ModelUnavailable, match="no weights for score"):
        served(store_tiny_chat(tmp_path / "base", ["a"]), "reward")
    assert set(KINDS) == {"reward", "process_reward", "classification"}


def test_a_pair_is_scored_as_the_conversations_that_were_trained_on(store: Callable[[ObjectiveName], str]) -> None:
    """Texts in the chat template have the tokens of lists of messages."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(store("reward"))
    data = DataConfig(chat=True)
    turns = [{"role": "user", "content": "what is six"}, {"role": "assistant", "content": "it is seven"}]
    listed = {"messages": turns[:1], "chosen": turns[1:], "rejected": [turns[1] | {"content": "so"}]}
    (row,) = encoder("reward", data, tokenizer)(listed)
    (scored,) = encoder("reward", data, tokenizer)({"prompt": "what is six", "chosen": "it is seven", "rejected": "so"})
    assert row == scored
