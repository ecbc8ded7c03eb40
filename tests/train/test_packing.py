"""Sequences laid end to end do not see each other, whatever attention a family has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from squadron.core.errors import InputError
from squadron.train.models.builders import Pretrained
from squadron.train.models.families import FAMILIES, make_family_model
from squadron.train.objectives.language import SupervisedFineTuning

LENGTHS = (12, 50)  # shorter and longer than the stand-ins' sliding window


def rows() -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    drawn = [draw.integers(5, 400, length) for length in LENGTHS]
    return [{"input_ids": ids, "labels": ids, "length": len(ids)} for ids in drawn]


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.chats and name != "lfm2"])
def test_the_loss_of_two_sequences_is_that_of_each_alone(tmp_path: Path, name: str) -> None:
    """Transformers' own forward pass over each, with a mask, is the reference."""
    from transformers import AutoModelForCausalLM

    path = make_family_model(tmp_path, name)
    model, objective = Pretrained(path)().eval(), SupervisedFineTuning()
    reference: Any = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    batch = objective.collate(rows())
    with torch.no_grad():
        together = float(objective(model, batch)) * objective.weight(batch)
        apart = 0.0
        for row in rows():
            ids = torch.tensor(row["input_ids"])[None]
            logits = reference(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :-1]
            apart += float(torch.nn.functional.cross_entropy(logits.float(), ids[0, 1:], reduction="sum"))
    assert together == pytest.approx(apart, rel=1e-5)


@pytest.mark.parametrize("name", ["gemma3", "cohere2", "gptoss"])
def test_a_window_holds_without_a_mask_too(tmp_path: Path, name: str) -> None:
    model = Pretrained(make_family_model(tmp_path, name))().eval()
    ids = torch.tensor(rows()[1]["input_ids"])[None]
    with torch.no_grad():
        bare, masked = model(input_ids=ids).logits, model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert torch.allclose(bare, masked, atol=1e-5)


def test_layers_that_mix_neighbours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="convolution"):
        Pretrained(make_family_model(tmp_path, "lfm2"))()
