"""Embeddings: tied ones stay tied, and tokens that were added get rows, from the start to the export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from squadron.core.errors import ConfigError
from squadron.core.folder import Folder
from squadron.train.checkpoints.checkpoint import Reader
from squadron.train.checkpoints.export import export
from squadron.train.models.base import find_model
from squadron.train.models.builders import Pretrained
from squadron.train.models.families import make_family_model
from squadron.train.spec import LoraSettings
from squadron.train.text.tokenizer import load_tokenizer
from tests.train.store import write_checkpoint

LORA = LoraSettings(rank=4, alpha=8)


def store_with_added(folder: Path, tied: bool = False, count: int = 100) -> tuple[str, int]:
    """A model whose tokenizer has tokens beyond its embedding, and how many tokens that are."""
    path = make_family_model(folder, "qwen2.5", tied=tied)
    tokenizer = load_tokenizer(path)
    tokenizer.add_tokens([f"<added_{number}>" for number in range(count)])
    tokenizer.save_pretrained(path)
    return path, len(tokenizer)


def weights(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


def change(model: Any) -> None:
    """What stands for a training: every trained weight moves."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.02 * torch.randn_like(weight)


def exported(build: Pretrained, model: Any, folder: Path, tokenizer: str) -> Any:
    """What an export of the model loads as, which must answer as the trained one does."""
    from transformers import AutoModelForCausalLM

    write_checkpoint(Folder(str(folder / "store")), model)
    with Reader(Folder(str(folder / "store")), 1) as reader:
        made = export(build, reader, folder / "model", tokenizer=tokenizer, clean_process=False)
    return AutoModelForCausalLM.from_pretrained(made.path)


def test_tokens_without_a_row_are_refused_before_anything_starts(tmp_path: Path) -> None:
    path, tokens = store_with_added(tmp_path / "base")
    with pytest.raises(ConfigError, match=f"{tokens:,} tokens.*rows") as caught:
        find_model(path)
    assert "model.resize_embeddings" in caught.value.fix
    assert find_model(path, resizes=True).rows == tokens


def test_padding_beyond_the_tokens_is_no_reason_to_resize(tmp_path: Path) -> None:
    assert find_model(make_family_model(tmp_path / "base", "qwen2.5"), resizes=True).rows is None


@pytest.mark.parametrize("tied", [False, True])
def test_new_rows_lie_about_the_mean_of_the_old_and_are_the_same_each_time(tmp_path: Path, tied: bool) -> None:
    path, tokens = store_with_added(tmp_path / "base", tied)
    before, _ = weights(Pretrained(path)())
    model = Pretrained(path, rows=tokens)()
    rows, head = weights(model)
    assert rows.shape[0] == head.shape[0] == model.config.vocab_size == tokens
    assert torch.equal(rows[: len(before)], before) and (head is rows) == tied
    assert (rows[len(before) :].mean(0) - before.mean(0)).abs().max() < 1e-3
    again, _ = weights(Pretrained(path, rows=tokens)())
    assert torch.equal(rows, again)
    meta, _ = weights(Pretrained(path, rows=tokens).on_meta())
    assert meta.shape == rows.shape


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("resized", [False, True], ids=["as it is", "resized"])
@pytest.mark.parametrize("tied", [False, True], ids=["apart", "tied"])
def test_an_export_is_the_trained_model_tied_and_sized_as_it_was(
    tmp_path: Path, lora: LoraSettings | None, resized: bool, tied: bool
) -> None:
    if resized:
        path, tokens = store_with_added(tmp_path / "base", tied)
    else:
        path, tokens = make_family_model(tmp_path / "base", "qwen2.5", tied=tied), None
    build = Pretrained(path, lora=lora, rows=tokens)
    model = build()
    change(model)
    loaded = exported(build, model, tmp_path / "out", path)
    rows, head = weights(loaded)
    assert loaded.config.tie_word_embeddings == tied and (head is rows) == tied
    own, own_head = weights(model)
    assert torch.equal(rows, own) and torch.equal(head, own_head)
    ids = torch.randint(0, rows.shape[0], (2, 16))
    with torch.no_grad():
        assert torch.allclose(loaded(ids).logits, model(ids).logits, atol=1e-4)
