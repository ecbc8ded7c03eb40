"""The network of a COMET checkpoint. Its modules are named as the checkpoint names their weights.

B texts of T tokens, with L layers of D dimensions and C tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from squadron.evaluate.translation.comet.hparams import Hyperparameters


def sparsemax(scores_L: torch.Tensor) -> torch.Tensor:
    """The nearest point of the simplex (Martins and Astudillo 2016, algorithm 1): as softmax, but with zeros."""
    sorted_L = scores_L.sort(descending=True).values
    above_L = sorted_L.cumsum(0) - 1
    count_L = torch.arange(1, len(scores_L) + 1, device=scores_L.device)
    support = int((count_L * sorted_L > above_L).sum())
    return (scores_L - above_L[support - 1] / support).clamp(min=0)


class LayerMix(nn.Module):
    """The weighted sum of all layers of an encoder, its embeddings included."""

    def __init__(self, layers: int, sparse: bool, norm: bool) -> None:
        super().__init__()
        self.scalar_parameters = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(layers))
        self.gamma = nn.Parameter(torch.ones(1))
        self._sparse, self._norm = sparse, norm

    def forward(self, layers: Sequence[torch.Tensor], mask_BT: torch.Tensor) -> torch.Tensor:
        """(B, T, D) from L layers of that shape. With `norm` a layer is first set to mean 0 and variance 1 over all
        dimensions of all tokens of a text."""
        scores_L = torch.cat(list(self.scalar_parameters))
        weights_L = sparsemax(scores_L) if self._sparse else scores_L.softmax(0)
        mixed = torch.zeros_like(layers[0], dtype=torch.float32)
        for weight, layer in zip(weights_L, layers, strict=True):
            mixed += weight * (_normalised(layer.float(), mask_BT) if self._norm else layer.float())
        return self.gamma * mixed


class Estimator(nn.Module):
    """A score from features; dropout rests, and only keeps its place in the numbering of the weights."""

    def __init__(self, features: int, hparams: Hyperparameters) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for size in hparams.hidden_sizes:
            parts += [nn.Linear(features, size), getattr(nn, hparams.activations)(), nn.Dropout()]
            features = size
        parts.append(nn.Linear(features, 1))
        if hparams.final_activation is not None:
            parts.append(getattr(nn, hparams.final_activation)())
        self.ff = nn.Sequential(*parts)

    def forward(self, features_BF: torch.Tensor) -> torch.Tensor:
        """(B,)."""
        scores: torch.Tensor = self.ff(features_BF).squeeze(-1)
        return scores


class Encoder(nn.Module):
    """transformers' encoder, one level down, where a checkpoint has it."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        from transformers import AutoModel

        self.model = AutoModel.from_config(config, add_pooling_layer=False)

    def forward(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The embeddings and the output of each layer, (B, T, D) each."""
        found = self.model(input_ids=ids_BT, attention_mask=mask_BT, output_hidden_states=True)
        layers: tuple[torch.Tensor, ...] = found.hidden_states
        return layers


class CometNetwork(nn.Module):
    """A checkpoint's network for an encoder of this configuration, without weights of its own."""

    def __init__(self, hparams: Hyperparameters, config: Any) -> None:
        super().__init__()
        self.hparams, layers, width = hparams, config.num_hidden_layers + 1, config.hidden_size
        self.encoder = Encoder(config)
        if hparams.layer == "mix":
            self.layerwise_attention = LayerMix(layers, hparams.sparse, hparams.layer_norm)
        self.estimator = Estimator(width * (1 if hparams.joins else 6 if "ref" in hparams.reads else 4), hparams)
        if hparams.labels:
            self.hidden2tag = nn.Linear(width, 1 + len(hparams.labels))

    def embed(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """The pooled embedding (B, D) of each text by itself."""
        tokens_BTD = self._mixed(self.encoder(ids_BT, mask_BT), mask_BT)
        inside_BT1 = mask_BT[..., None].bool()
        match self.hparams.pool:
            case "avg":
                return tokens_BTD.masked_fill(~inside_BT1, 0.0).sum(1) / mask_BT.sum(1, keepdim=True)
            case "max":
                return tokens_BTD.masked_fill(~inside_BT1, -torch.inf).amax(1)
            case _:
                return tokens_BTD[:, 0]

    def regress(self, mt_BD: torch.Tensor, src_BD: torch.Tensor, ref_BD: torch.Tensor | None) -> torch.Tensor:
        """Scores (B,) from embeddings of the translation, the source, and the reference where the network reads it."""
        parts = [mt_BD, src_BD] if ref_BD is None else [mt_BD, ref_BD, mt_BD * ref_BD, (mt_BD - ref_BD).abs()]
        scores: torch.Tensor = self.estimator(torch.cat([*parts, mt_BD * src_BD, (mt_BD - src_BD).abs()], dim=1))
        return scores

    def judge(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Of texts read joined: scores (B,) by their first token, and the probabilities (B, T, C) of tags."""
        layers = self.encoder(ids_BT, mask_BT)
        scores_B = self.estimator(self._mixed(layers, mask_BT)[:, 0])
        if not self.hparams.labels:
            return scores_B, None
        return scores_B, self.hidden2tag(layers[self.hparams.word_layer].float()).softmax(-1)

    def _mixed(self, layers: tuple[torch.Tensor, ...], mask_BT: torch.Tensor) -> torch.Tensor:
        if self.hparams.layer == "mix":
            mixed: torch.Tensor = self.layerwise_attention(layers, mask_BT)
            return mixed
        return layers[self.hparams.layer].float()


def _normalised(layer_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    inside_BT1 = mask_BT[..., None].float()
    count_B11 = (mask_BT.sum(1) * layer_BTD.shape[-1]).view(-1, 1, 1)
    mean_B11 = (layer_BTD * inside_BT1).sum((1, 2), keepdim=True) / count_B11
    variance_B11 = ((layer_BTD - mean_B11) * inside_BT1).square().sum((1, 2), keepdim=True) / count_B11
    return (layer_BTD - mean_B11) / (variance_B11 + 1e-12).sqrt()
