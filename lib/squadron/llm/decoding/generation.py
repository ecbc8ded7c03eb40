"""Answers to a batch of prompts, each to its end. B rows of a batch, T tokens, V tokens of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from squadron.core.work import take_turns
from squadron.llm.decoding.decoder import Answer, Decoder
from squadron.llm.decoding.rows import has_rows, left_padded
from squadron.llm.decoding.sampling import score

if TYPE_CHECKING:
    import torch


def generate(model: Any, answers: Sequence[Answer]) -> None:
    """Give every answer all of its tokens.

    What has ended is computed no longer, where the model's cache of keys and values can be taken apart by rows; other
    models run transformers' own `generate`. The answers are the same.
    """
    import torch

    with torch.inference_mode():
        if not has_rows(model):
            _by_transformers(model, answers)
            return
        decoder = Decoder(model)
        decoder.step(answers)
        while decoder.answers:
            take_turns()
            decoder.step()


def stops_in(tokenizer: Any, stops: Sequence[str]) -> Callable[[Sequence[int]], bool]:
    """Whether the text of an answer's tokens holds a stop; to be asked after each token.

    transformers' own criterion looks across the border, at what the prompt ends with.
    """
    # No token is shorter than a byte; one more, since some tokenizers drop a space at the start of what they decode.
    tail = max((len(stop.encode()) for stop in stops), default=0) + 1

    def stopped(tokens: Sequence[int]) -> bool:
        if not stops:
            return False
        text = tokenizer.decode(tokens[-tail:], skip_special_tokens=True)
        return any(stop in text for stop in stops)

    return stopped


def _by_transformers(model: Any, answers: Sequence[Answer]) -> None:
    """Without what only the decoder does: adapters by row, and logprobs."""
    import torch

    samplers = [answer.sampler for answer in answers]
    ids_BT, mask_BT = left_padded([answer.prompt for answer in answers], model.device)

    def add(ids_BT: torch.Tensor, scores_BV: torch.Tensor, **_: Any) -> torch.Tensor:
        for answer, token in zip(answers, ids_BT[:, -1].tolist(), strict=True):
            answer.add(token)
        take_turns()
        return torch.tensor([answer.finish_reason is not None for answer in answers], device=ids_BT.device)

    model.generate(
        input_ids=ids_BT,
        attention_mask=mask_BT,
        max_new_tokens=max(answer.limit for answer in answers),
        do_sample=False,
        eos_token_id=None,
        temperature=None,
        top_p=None,
        top_k=None,
        logits_processor=[lambda _, logits_BV: score(logits_BV, samplers)],
        stopping_criteria=[add],
    )
