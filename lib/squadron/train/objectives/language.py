"""Objectives of causal language models: supervised fine-tuning and direct preference optimisation.

Shape suffixes: N tokens in a row, K of them with a target, P pairs, V the vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from squadron.train.batching.batches import Row
from squadron.train.objectives.layout import IGNORED, end_to_end

if TYPE_CHECKING:
    import torch

_SCALED_LOGITS = (
    "final_logit_softcapping",
    "logits_scaling",
    "logit_scale",
    "lm_head_multiplier",
    "output_multiplier",
)
"""Settings of models that do more to the head's output than the head; their logits are always the model's own."""


@dataclass(frozen=True)
class SupervisedFineTuning:
    """Mean negative log-likelihood of the tokens that have a label.

    Rows hold `input_ids` and `labels` of equal lengths; a label of -100 has no part in the loss, which is how a prompt
    is left out. Agrees with transformers' own loss (`ForCausalLMLoss`) on the same sequences.
    """

    chunk: int = 0

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        return end_to_end([np.asarray(r["input_ids"]) for r in rows], [np.asarray(r["labels"]) for r in rows])

    def weight(self, batch: dict[str, torch.Tensor]) -> float:
        return float(len(batch["targets"]))

    def __call__(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        total = _fused(model, batch) if self.chunk else None
        if total is None:
            total = -token_logprobs(model, batch, self.chunk).sum()
        return total / max(1, len(batch["targets"]))


@dataclass(frozen=True)
class DirectPreference:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7), conservative with `label_smoothing`.

    With `nll_weight`, so many times the mean negative log-likelihood of a token of the chosen answer is added (Pang et
    al. 2024, Iterative Reasoning Preference Optimization, eq. 1, whose likelihood is of question and answer together;
    here of the answer, as in TRL's `rpo_alpha`): without it the chosen answer may become less likely, too.

    Rows hold `prompt_ids`, `chosen_ids`, `rejected_ids`. For step-wise DPO (Lai et al. 2024) the prompt holds the steps
    so far and the two answers are one step each, without an end of sequence. The reference is the model with its
    adapter off, or the frozen half of `with_reference`. Agrees with TRL's DPO loss, type "sigmoid".
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    chunk: int = 0
    nll_weight: float = 0.0

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        answers = [(row["prompt_ids"], row[name]) for row in rows for name in ("chosen_ids", "rejected_ids")]
        ids = [np.concatenate([prompt, answer]) for prompt, answer in answers]
        labels = [np.concatenate([np.full(len(prompt), IGNORED), answer]) for prompt, answer in answers]
        return end_to_end(ids, labels)

    def weight(self, batch: dict[str, torch.Tensor]) -> float:
        return (len(batch["bounds"]) - 1) / 2

    def __call__(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        import torch

        with torch.no_grad(), _reference(model) as reference:
            reference_P2 = self._answer_logprobs(reference, batch)
        policy_P2 = self._answer_logprobs(getattr(model, "policy", model), batch)
        gain_P2 = self.beta * (policy_P2 - reference_P2)
        loss, accuracy = preference_loss(gain_P2[:, 0], gain_P2[:, 1], self.label_smoothing)
        told = {"accuracy": accuracy, "margin": (gain_P2[:, 0] - gain_P2[:, 1]).mean()}
        if self.nll_weight:
            lengths_P2 = torch.bincount(batch["sequence"], minlength=policy_P2.numel()).view(-1, 2)
            nll = -(policy_P2[:, 0] / lengths_P2[:, 0]).mean()
            loss, told = loss + self.nll_weight * nll, told | {"chosen_nll": nll}
        return loss, told

    def _answer_logprobs(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logp_K = token_logprobs(model, batch, self.chunk)
        sums = logp_K.new_zeros(len(batch["bounds"]) - 1).index_add(0, batch["sequence"], logp_K)
        return sums.view(-1, 2)


def preference_loss(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, label_smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bradley-Terry: the mean negative log-probability that the chosen one wins, and how often it scores higher."""
    import torch

    difference_P = chosen_P - rejected_P
    wins_P, loses_P = (torch.nn.functional.logsigmoid(sign * difference_P) for sign in (1, -1))
    loss_P = -(1 - label_smoothing) * wins_P - label_smoothing * loses_P
    return loss_P.mean(), (difference_P > 0).float().mean()


def with_reference(policy: torch.nn.Module, reference: torch.nn.Module) -> torch.nn.Module:
    """One module of a model that is trained and one that stays as it is, for `DirectPreference` without adapters."""
    import torch

    class PolicyAndReference(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = policy
            self.reference = reference.requires_grad_(False)

        def train(self, mode: bool = True) -> PolicyAndReference:
            super().train(mode)
            self.reference.eval()
            return self

        def gradient_checkpointing_enable(self, **settings: Any) -> None:
            self.policy.gradient_checkpointing_enable(**settings)  # type: ignore[operator]

    return PolicyAndReference()


def token_logprobs(model: Any, batch: dict[str, torch.Tensor], chunk: int = 0) -> torch.Tensor:
    """Log-probability of every target of an `end_to_end` batch: [K], float32.

    Logits are computed for the K places that have a target and no others. With `chunk`, for so many at a time, and
    again in the backward pass, so that never more than [chunk, V] are in memory.
    """
    import torch

    if not len(batch["targets"]):
        # Still a function of the weights, so that every worker takes part in every exchange of gradients.
        return _forward(model, batch, logits_to_keep=1).logits.sum()[None][:0].float()
    if not chunk or not _head_is_all(model):
        return _pick(_forward(model, batch, logits_to_keep=batch["keep"]).logits[0], batch["targets"])
    hidden_KE, head = _hidden_and_head(model, batch)
    count = _most_of_all_workers(-(-len(hidden_KE) // chunk), hidden_KE.device)
    parts = [
        torch.utils.checkpoint.checkpoint(lambda h, t: _pick(head(h), t), hidden, targets, use_reentrant=False)
        for hidden, targets in zip(hidden_KE.tensor_split(count), batch["targets"].tensor_split(count), strict=True)
    ]
    return torch.cat(parts)


def _fused(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """The sum of the negative log-likelihoods by Liger's kernel; None where there is no GPU for it."""
    from squadron.train.models import kernels

    if not kernels.available() or not len(batch["targets"]) or not _head_is_all(model):
        return None
    hidden_KE, head = _hidden_and_head(model, batch)
    return kernels.fused_cross_entropy(head, hidden_KE, batch["targets"])


def _head_is_all(model: Any) -> bool:
    """Whether the logits are the head's output and nothing more."""
    return not any(getattr(model.config.get_text_config(), name, None) for name in _SCALED_LOGITS)


def _hidden_and_head(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Any]:
    """The last hidden states at the K places that have a target, and what turns them into logits."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden_KE = _forward(whole.get_decoder(), batch).last_hidden_state[0, batch["keep"]]
    return hidden_KE, whole.get_output_embeddings()


def _most_of_all_workers(count: int, device: torch.device) -> int:
    """ZeRO 3 gathers the head's weights at every use, so that all workers must use it equally often."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized() or dist.get_world_size() == 1:
        return count
    most = torch.tensor(count, device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def _forward(model: Any, batch: dict[str, torch.Tensor], **settings: Any) -> Any:
    from squadron.train.models.attention import separating

    bounds = batch["bounds"]
    longest = int(batch["position_ids"].max()) + 1
    return model(
        input_ids=batch["input_ids"],
        attention_mask=separating(model, batch["position_ids"]),
        position_ids=batch["position_ids"],
        cu_seq_lens_q=bounds,
        cu_seq_lens_k=bounds,
        max_length_q=longest,
        max_length_k=longest,
        use_cache=False,
        **settings,
    )


def _pick(logits_KV: torch.Tensor, targets_K: torch.Tensor) -> torch.Tensor:
    import torch

    return -torch.nn.functional.cross_entropy(logits_KV.float(), targets_K, reduction="none")


@contextlib.contextmanager
def _reference(model: Any) -> Any:
    if hasattr(model, "reference"):
        yield model.reference
    else:
        with model.disable_adapter():
            yield model
