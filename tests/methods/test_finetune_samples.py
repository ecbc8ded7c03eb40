"""What the model answers before and after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from squadron.methods.finetune.config import SamplesConfig
from squadron.methods.finetune.samples import answer
from tests.llm.tiny import store_tiny_adapters, store_tiny_chat


def test_samples_are_those_of_transformers(tmp_path: Path) -> None:
    """Of a model, and of an adapter over it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = [f"say {number} words, please" + " now" * (number % 7) for number in range(9)]
    models = store_tiny_adapters(tmp_path, store_tiny_chat(tmp_path / "base", words * 4))
    tokenizer = AutoTokenizer.from_pretrained(models.base)
    prompts = [tokenizer(text)["input_ids"] for text in words]
    for folder in models.adapters.values():
        network: Any = AutoModelForCausalLM.from_pretrained(models.base)
        if folder:
            network = PeftModel.from_pretrained(network, folder)
        said = answer(models.base, folder or None, prompts, tokenizer, SamplesConfig(max_new_tokens=30, batch_size=4))
        for prompt, text in zip(prompts, said, strict=True):
            ids = torch.tensor([prompt])
            out = network.generate(input_ids=ids, max_new_tokens=30, do_sample=False)[0, len(prompt) :]
            assert text == tokenizer.decode(out, skip_special_tokens=True)
