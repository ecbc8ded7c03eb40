"""How the next token of each answer is chosen. B rows of a batch, G of them that are drawn alike, V tokens of the
vocabulary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from squadron.llm.chat import Sampling

if TYPE_CHECKING:
    import torch

    from squadron.llm.decoding.grammar import Grammar


_GREEDY = 1e-5
"""A temperature at which a draw is the likeliest token; logits divided by less overflow."""


class Sampler:
    """What chooses the tokens of one answer: a generator of its own, seeded by `sampling`, so that the answer does not
    depend on others; and what changes the logits of its tokens.

    `bias` is added to them. The penalties are taken off those of tokens that the answer holds: `frequency_penalty` for
    every time, `presence_penalty` once, as OpenAI defines them. `grammar` is what the answer keeps to.
    """

    def __init__(
        self,
        sampling: Sampling,
        bias: Mapping[int, float] | None = None,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        grammar: Grammar | None = None,
    ) -> None:
        self.sampling = sampling
        self._frequency, self._presence, self._grammar = frequency_penalty, presence_penalty, grammar
        self._changes = dict(bias or {})  # what is added to the logits of tokens
        self._held: set[int] = set()
        self._generator: torch.Generator | None = None
        self._failed: Exception | None = None

    def adjust(self, logits_BV: torch.Tensor, row: int) -> None:
        """Add biases, take off penalties, and take away what the grammar does not allow, in a row of these.

        What goes wrong is raised by `accept`, so that it ends this answer alone and not those that share its batch.
        """
        try:
            self._adjust(logits_BV, row)
        except Exception as error:
            self._failed = error

    def _adjust(self, logits_BV: torch.Tensor, row: int) -> None:
        if self._changes:
            tokens: Any = list(self._changes)
            logits_BV[row, tokens] += logits_BV.new_tensor(list(self._changes.values()))
        if self._grammar is not None:
            self._grammar.mask(logits_BV[row])

    def accept(self, token: int) -> bool:
        """Take a token; whether the answer is whole by its grammar, so that nothing can follow.

        Raises what has gone wrong with it."""
        if self._failed is not None:
            raise self._failed
        penalty = self._frequency + (self._presence if token not in self._held else 0.0)
        self._held.add(token)
        if penalty:
            self._changes[token] = self._changes.get(token, 0.0) - penalty
        return self._grammar is not None and self._grammar.accept(token)

    def uniform(self, logits_BV: torch.Tensor) -> torch.Tensor:
        """The next numbers from 0 to 1 of this answer, [V]; without a seed, of a random one."""
        import torch

        if self._generator is None:
            self._generator = torch.Generator(logits_BV.device)
            seed = self.sampling.seed
            self._generator.seed() if seed is None else self._generator.manual_seed(seed)
        return torch.rand(logits_BV.shape[1], generator=self._generator, device=logits_BV.device)


def score(logits_BV: torch.Tensor, samplers: Sequence[Sampler]) -> torch.Tensor:
    """What each row's next token has the most of, [B, V]: the likeliest token at temperature 0, else a draw. The logits
    are adjusted in place."""
    alike: defaultdict[tuple[float, float], list[int]] = defaultdict(list)
    for row, sampler in enumerate(samplers):
        sampler.adjust(logits_BV, row)
        if sampler.sampling.temperature > _GREEDY:
            alike[sampler.sampling.temperature, sampler.sampling.top_p].append(row)
    score_BV = logits_BV.clone() if alike else logits_BV
    for (temperature, top_p), rows in alike.items():
        chosen = slice(None) if len(rows) == len(samplers) else rows
        score_BV[chosen] = _draw(logits_BV[chosen], [samplers[row] for row in rows], temperature, top_p)
    return score_BV


def _draw(logits_GV: torch.Tensor, samplers: Sequence[Sampler], temperature: float, top_p: float) -> torch.Tensor:
    import torch

    scaled_GV = logits_GV / temperature
    if top_p < 1:
        scaled_GV = keep_nucleus(scaled_GV, top_p)
    return scaled_GV + gumbel(torch.stack([sampler.uniform(logits_GV) for sampler in samplers]))


def gumbel(uniform_GV: torch.Tensor) -> torch.Tensor:
    """Gumbel noise from numbers between 0 and 1: added to logits it makes the largest a draw from their softmax."""
    import torch

    return -torch.log(-torch.log(uniform_GV.clamp(1e-20, 1 - 1e-7)))


def keep_nucleus(logits_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Logits with all but the smallest set of tokens that holds `top_p` of the probability at minus infinity
    (Holtzman et al. 2020); the likeliest token always stays."""
    ordered_BV, places_BV = logits_BV.sort(dim=-1, descending=True)
    share_BV = ordered_BV.softmax(-1)
    outside_BV = share_BV.cumsum(-1) - share_BV >= top_p
    return logits_BV.masked_fill(outside_BV.scatter(-1, places_BV, outside_BV), float("-inf"))
