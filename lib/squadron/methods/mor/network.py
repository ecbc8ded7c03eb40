"""The reranker's network (the published code's). B questions, C candidates, S scores, T places of a path, K strings of
types, E dimensions of their vectors, W the width of a layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from squadron.methods.mor.features import NOTHING
from squadron.methods.mor.reranker_config import Feature


class Reranker(torch.nn.Module):
    """A layer over each feature, put side by side, and one number for each candidate.

    The vectors of the strings of types are kept with it and not trained.
    """

    def __init__(self, types_KE: torch.Tensor, places: int, width: int, features: tuple[Feature, ...]) -> None:
        super().__init__()
        self.width = width
        self.types_KE: torch.Tensor
        self.register_buffer("types_KE", types_KE)
        self.scores = torch.nn.Linear(places + 1, width) if "scores" in features else None
        self.types = torch.nn.Linear(types_KE.shape[1], width) if "types" in features else None
        codes = [torch.nn.Embedding(NOTHING + 1, width) for _ in range(places if "codes" in features else 0)]
        self.codes = torch.nn.ModuleList(codes)
        parts = (self.scores is not None) + (self.types is not None) + len(codes)
        self.joined = torch.nn.Linear(parts * width, 1)
        self.scaled = torch.nn.Linear(1, 1)

    def forward(self, score_BCS: torch.Tensor, kind_BC: torch.Tensor, code_BCT: torch.Tensor) -> torch.Tensor:
        """What each candidate scores, [B, C].

        The last layer is linear, so that what each feature adds to it is computed on its own: once for each string of
        types and for each code, however many candidates have it.
        """
        weights = iter(self.joined.weight.view(-1, self.width))
        found = self.joined.bias
        if self.scores is not None:
            found = found + self.scores(score_BCS).relu() @ next(weights)
        if self.types is not None:
            found = found + (self.types(self.types_KE).relu() @ next(weights))[kind_BC]
        for place, embed in enumerate(self.codes):
            found = found + (embed.weight.relu() @ next(weights))[code_BCT[..., place]]  # type: ignore[operator]
        scaled: torch.Tensor = self.scaled(found.unsqueeze(-1)).squeeze(-1)
        return scaled


def first_is_right(
    model: torch.nn.Module, batch: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The cross-entropy of the right candidate, the first of each row, among all of the row."""
    logits_BC = model(batch["scores"], batch["kinds"], batch["codes"])
    right_B = torch.zeros(len(logits_BC), dtype=torch.long, device=logits_BC.device)
    accuracy = (logits_BC[:, 0] > logits_BC[:, 1:].amax(1)).float().mean()
    return torch.nn.functional.cross_entropy(logits_BC, right_B), {"accuracy": accuracy}
