"""Encoders with heads: the losses are those of transformers' classifiers, words are read whole, and what was exported
says what was trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.config import Config
from squadron.core.errors import ConfigError, InputError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.train.checkpoints.checkpoint import Reader
from squadron.train.heads import HeadedEncoder, find_headed, open_headed, store_examples, tune_headed
from squadron.train.models.head_layers import Headed
from squadron.train.models.heads import export_headed
from squadron.train.objectives.heads import HeadLoss
from squadron.train.objectives.layout import IGNORED
from squadron.train.spec import OptimizerConfig, TrainSpec
from squadron.train.text.tokenizer import load_tokenizer
from squadron.train.text.words import WordReader
from tests.parity.test_train_losses import assert_same, tiny, value_and_gradients
from tests.tiny_bert import make_bert, make_tokenizer
from tests.train.store import write_checkpoint

WORDS = ["who", "wrote", "it", "the", "book", "river", "is", "long", "old", "unbelievable"]
COLOURS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two layers without dropout."""
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return make_bert(tmp_path_factory.mktemp("heads") / "bert", [*WORDS[:-1], *COLOURS], **off)


def a_stage(folder: Path) -> Stage:
    run = Run("heads", Config(), Folder(folder), Profile(name="auto"), track=())
    stage = Stage(run, "train", "", {}, run.folder / "stages" / "train-0")
    stage.begin()
    return stage


def encoder_of(path: str, **heads: Any) -> HeadedEncoder:
    return HeadedEncoder(path, "mean", 64, **heads)


def coloured(draw: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Words of colours are to be found; the label is whether the second text asks for the book."""
    rows: list[dict[str, Any]] = []
    for _ in range(count):
        words = draw.choice([*WORDS, *COLOURS], int(draw.integers(1, 8))).tolist()
        second = str(draw.choice(["the old book", "a river"]))
        tags = ["take" if word in COLOURS else "leave" for word in words]
        rows.append({"words": words, "second": second, "label": "book" if "book" in second else "no", "tags": tags})
    return rows


def test_the_loss_of_tags_is_that_of_token_classification(bert: str) -> None:
    """In value and in all gradients, with segments and with words without a target."""
    from transformers import BertForTokenClassification

    draw = np.random.default_rng(0)
    rows = [
        {"input_ids": draw.integers(7, 60, 12), "second": 8, "label": IGNORED, "places": [1, 3, 4], "tags": [0, 2, 1]},
        {"input_ids": draw.integers(7, 60, 9), "second": 9, "label": IGNORED, "places": [2], "tags": [1]},
    ]
    objective, model = HeadLoss(0), encoder_of(bert, tags=("a", "b", "c"))().train()
    theirs = BertForTokenClassification.from_pretrained(bert, num_labels=3).train()
    theirs.bert.load_state_dict(model.encoder.state_dict(), strict=False)
    theirs.classifier.load_state_dict(model.tag_head.state_dict())
    batch = objective.collate(rows)
    loss = theirs(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], token_type_ids=batch["types"],
        labels=batch["tags"],
    ).loss  # fmt: skip
    theirs_by_name = {
        name.replace("bert.", "encoder.").replace("classifier.", "tag_head."): gradient
        for name, gradient in value_and_gradients(loss, theirs)[1].items()
    }
    assert objective.weight(batch) == 4
    assert_same(value_and_gradients(objective(model, batch)[0], model), (loss.item(), theirs_by_name))


def test_the_loss_of_labels_is_that_of_sequence_classification() -> None:
    """Which reads the last token, has no bias, and weighs no class."""
    theirs = tiny("LlamaForSequenceClassification", num_labels=3)
    ours = Headed(theirs.model, "last", 3, 0).train()
    ours.label_head.weight = theirs.score.weight
    draw = np.random.default_rng(1)
    rows = [
        {"input_ids": draw.integers(3, 96, size), "second": size, "label": label, "places": [], "tags": []}
        for size, label in ((7, 2), (11, 0), (4, 1))
    ]
    objective = HeadLoss(0, segments=False)
    batch = objective.collate(rows)
    expected = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    assert float(objective(ours, batch)[0].detach()) == pytest.approx(float(expected.detach()), abs=1e-6)


def test_weights_of_classes_are_those_of_torch_and_two_heads_add_up(bert: str) -> None:
    rows = store(bert, coloured(np.random.default_rng(2), 6))
    model = encoder_of(bert, labels=("book", "no"), tags=("leave", "take"))().eval()
    joint = HeadLoss(0, label_weights=(3.0, 1.0), tag_weights=(1.0, 5.0), both=True)
    batch = joint.collate(rows)
    with torch.no_grad():
        label_BC, tag_BTW = model(batch["input_ids"], batch["attention_mask"], batch["types"])
    weights = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 5.0])
    entropy = torch.nn.functional.cross_entropy
    (alone, _), whole = HeadLoss(0, tag_weights=(1.0, 5.0))(Tags(model), batch), tag_BTW.flatten(0, 1)
    assert float(alone.detach()) == pytest.approx(float(entropy(whole, batch["tags"].flatten(), weights[1])), abs=1e-6)
    each = [
        entropy(label_BC[n], batch["labels"][n]) * weights[0][batch["labels"][n]]
        + entropy(tag_BTW[n], batch["tags"][n], weights[1])
        for n in range(len(rows))
    ]
    assert float(joint(model, batch)[0].detach()) == pytest.approx(float(sum(each) / len(each)), abs=1e-6)


class Tags(torch.nn.Module):
    """A model's tags alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *batch: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, self.model(*batch)[1]


def store(path: str, rows: list[dict[str, Any]], **settings: Any) -> list[Mapping[str, Any]]:
    """Rows as a training reads them."""
    import tempfile

    encoder = encoder_of(path, labels=("book", "no"), tags=("leave", "take"), **settings)
    with tempfile.TemporaryDirectory() as folder:
        return [dict(row) for row in list(store_examples(a_stage(Path(folder)), "rows.arrow", rows, encoder))]


@given(
    words=st.lists(st.sampled_from([*WORDS, "\u200b", "x" * 9]), max_size=12),
    second=st.sampled_from([None, "the book", "who wrote the old book it is the river is long"]),
    room=st.integers(5, 40),
    cut=st.sampled_from(["start", "end"]),
)
def test_words_are_read_whole_from_the_side_that_stays(
    words: list[str], second: str | None, room: int, cut: Any
) -> None:
    """Tokens are those of the tokenizer; the place of each word is that of its first token."""
    tokenizer = make_tokenizer(WORDS[:-1])
    (read,) = WordReader(tokenizer, room, cut).read([{"words": words, "second": second}])
    assert len(read.ids) <= room
    kept = words[read.first_word : read.first_word + len(read.places)]
    assert kept == (words[: len(kept)] if cut == "end" else words[len(words) - len(kept) :])
    assert bool(kept) == bool(words)
    tokens = [tokenizer(word, add_special_tokens=False)["input_ids"] or [tokenizer.unk_token_id] for word in kept]
    assert [read.ids[place] for place in read.places] == [one[0] for one in tokens]
    if len(kept) == len(words) and "\u200b" not in words and len(read.ids) < room:
        whole = tokenizer(" ".join(words), second) if second else tokenizer(" ".join(words))
        assert read.ids == whole["input_ids"]
        sides = [*whole.sequence_ids(0), 1]
        assert read.second == (sides.index(1) if second else len(read.ids))


def test_a_trained_model_has_learned_and_says_the_same_from_its_folder(bert: str, tmp_path: Path) -> None:
    """Overfitted on 24 rows; then exported, opened, and asked in batches of any size."""
    rows = coloured(np.random.default_rng(3), 24)
    encoder = encoder_of(bert, labels=("book", "no"), tags=("leave", "take"), cut="start")
    stored, objective, model = store(bert, rows), HeadLoss(0, segments=False, both=True), encoder().train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(60):
        loss, _ = objective(model, objective.collate(stored))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(loss.detach()) < 0.05
    write_checkpoint(Folder(str(tmp_path / "store")), model)
    with Reader(Folder(str(tmp_path / "store")), 1) as reader:
        export_headed(encoder, reader, tmp_path / "model")
    opened = open_headed(str(tmp_path / "model"), "cpu")
    long = {"words": ["old"] * 90 + ["red"], "second": "the old book"}
    found, one_by_one = opened.predict([*rows, long]), opened.predict([*rows, long], batch_size=1)
    for one, other, row in zip(found, one_by_one, rows, strict=False):
        np.testing.assert_allclose(one.tags, other.tags, atol=1e-5)
        assert one.labels == pytest.approx(other.labels, abs=1e-5)
        assert max(one.labels, key=one.labels.__getitem__) == row["label"] and one.cut == 0
        assert [opened.tags[tag] for tag in one.tags.argmax(1)] == row["tags"]
    assert found[-1].cut == 91 - 58 and np.isnan(found[-1].tags[: found[-1].cut]).all()
    assert found[-1].tags[-1, 1] > 0.5


def test_a_folder_of_another_architecture_is_refused_by_name(bert: str, tmp_path: Path) -> None:
    encoder = encoder_of(bert, tags=("leave", "take"))
    write_checkpoint(Folder(str(tmp_path / "store")), encoder())
    with Reader(Folder(str(tmp_path / "store")), 1) as reader:
        export_headed(encoder, reader, tmp_path / "model")
    with pytest.raises(InputError, match="BertModel without heads"):
        open_headed(bert)
    changes = {
        "over a bert, its encoder is a electra": ("config.json", {"model_type": "electra"}),
        "not those of a bert with these heads: tag_head": ("heads.json", {"tags": ["a", "b", "c"]}),
        r"heads.json cannot be read": ("heads.json", {"pooling": "max"}),
    }
    for number, (words, (file, change)) in enumerate(changes.items()):
        other = shutil.copytree(tmp_path / "model", tmp_path / str(number))
        (other / file).write_text(json.dumps(json.loads((other / file).read_text()) | change))
        with pytest.raises(InputError, match=words):
            open_headed(str(other))


def test_what_cannot_be_learned_is_refused(bert: str, tmp_path: Path) -> None:
    stage, encoder = a_stage(tmp_path), encoder_of(bert, labels=("book", "no"), tags=("leave", "take"))
    bad = {
        "2 tags for 1 words": {"words": ["who"], "tags": ["leave", "take"]},
        "'river' is none of book, no": {"words": ["who"], "label": "river"},
        "nothing to read": {"words": [], "second": "", "label": "no"},
        "nothing to learn": {"words": ["who"], "tags": [None]},
    }
    for words, row in bad.items():
        with pytest.raises(InputError, match=words):
            store_examples(stage, "rows.arrow", [row], encoder)
    for settings in ({}, {"labels": ("one",)}, {"tags": ("a", "a")}, {"labels": ("a", "b"), "label_weights": (1.0,)}):
        with pytest.raises(ConfigError):
            find_headed(**settings)  # type: ignore[arg-type]


def test_a_training_ends_the_same_in_one_attempt_or_two(ray_cluster: object, bert: str, tmp_path: Path) -> None:
    """The second one has the checkpoint of half the steps only, as if it had been stopped there."""
    encoder = encoder_of(bert, labels=("book", "no"), tags=("leave", "take"), tag_weights=(1.0, 2.0))
    optimizer = OptimizerConfig(learning_rate=2e-3)
    spec = TrainSpec(steps=8, batch_size=8, micro_batch_size=4, optimizer=optimizer)
    spec = spec.model_copy(update={"checkpoint": spec.checkpoint.model_copy(update={"every": 4})})
    stage = a_stage(tmp_path)
    rows = store_examples(stage, "rows.arrow", coloured(np.random.default_rng(4), 24), encoder)
    whole = tune_headed(stage, "whole", encoder, rows, spec, held_out=rows)
    assert whole.metrics[-1]["held_out_loss"] < whole.metrics[0]["loss"]  # type: ignore[operator]
    there = Path(stage.folder.path)
    shutil.copytree(there / "whole" / "checkpoints" / "step-000004", there / "half" / "checkpoints" / "step-000004")
    half = tune_headed(stage, "half", encoder, rows, spec, held_out=rows)
    assert half.model.sha256 == whole.model.sha256
    assert replace(encoder, seed=1)().tag_head.weight.ne(encoder().tag_head.weight).any()
    assert load_tokenizer(half.model.locate(stage.run.folder)).vocab_size > 0
    assert half.model.open(stage.run.folder).labels == ("book", "no")
