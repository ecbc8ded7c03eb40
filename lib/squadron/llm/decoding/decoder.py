"""The decoder: answers of one model that share a batch, which they join and leave at every token (Yu et al. 2022,
"Orca"). What an answer is does not depend on which others share its batch.

B rows of a batch, V tokens of the vocabulary, K alternatives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from squadron.core.errors import InputError
from squadron.llm.decoding.rows import Rows
from squadron.llm.decoding.sampling import Sampler, score

if TYPE_CHECKING:
    import torch

FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True)
class Logprob:
    """How likely the token that was taken was, and the likeliest ones in its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(eq=False)
class Answer:
    """An answer in the making: what it follows, how its tokens are chosen, where it ends, and its tokens so far.

    It ends at `limit` tokens; before one of `ends`; when its sampler's grammar lets nothing follow; and when `stopped`
    says so, which is called with the tokens after each. `top_logprobs` is how many alternatives the `logprobs` of each
    token hold; None: there are no logprobs. `adapter` is the one that it is given with, where the model has any: then
    all have one.
    """

    prompt: tuple[int, ...]
    sampler: Sampler
    limit: int
    ends: Collection[int] = ()
    stopped: Callable[[Sequence[int]], bool] = lambda tokens: False
    top_logprobs: int | None = None
    adapter: str | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: str = ""
    refused: InputError | None = None

    @property
    def said(self) -> tuple[int, ...]:
        """The prompt with the tokens so far: what the next token follows."""
        return (*self.prompt, *self.tokens) if self.tokens else self.prompt

    @property
    def length(self) -> int:
        """How many tokens those are."""
        return len(self.prompt) + len(self.tokens)

    def add(self, token: int) -> bool:
        """Take a token, unless the answer is over; whether it is part of the answer."""
        if self.finish_reason is not None:
            return False
        if token in self.ends:
            self.finish_reason = "stop"
            return False
        self.tokens.append(token)
        stopped, complete = self.stopped(self.tokens), self.sampler.accept(token)
        if stopped or complete:
            self.finish_reason = "stop"
        elif len(self.tokens) >= self.limit:
            self.finish_reason = "length"
        return True

    def fail(self, error: Exception) -> None:
        """End with an error; one that the request has brought about is `refused`."""
        self.finish_reason = "error"
        self.refused = error if isinstance(error, InputError) else None
        self.error = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


class Decoder:
    """Answers of one model that grow by a token at a time. `answers` are those that are not over.

    For models that `has_rows` is true of. Whoever calls it has switched gradients off.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._rows: Rows | None = None
        self._reading: tuple[Rows, list[int]] | None = None
        self.answers: list[Answer] = []

    @property
    def reads(self) -> bool:
        """Whether prompts are being read."""
        return self._reading is not None

    @property
    def cells(self) -> int:
        """Rows times columns of what is kept."""
        return sum(rows.cells for rows in (self._rows, self._reading and self._reading[0]) if rows is not None)

    def step(self, joining: Sequence[Answer] = (), most: int | None = None) -> None:
        """One more token for every answer; those that join read their prompts first. Where there are no others, at most
        `most` columns of them are read in a step, and tokens come when all are.

        A token that one of them cannot take ends that one with an error. Raises what the model raises; then none of the
        answers can go on.
        """
        logits_BV = self._read(joining, most)
        if logits_BV is None or self._rows is None:
            return
        tokens_B = score(logits_BV, [answer.sampler for answer in self.answers]).argmax(-1)
        for row, (answer, token) in enumerate(zip(self.answers, tokens_B.tolist(), strict=True)):
            try:
                if answer.add(token) and answer.top_logprobs is not None:
                    answer.logprobs.append(_logprob(token, logits_BV[row], answer.top_logprobs))
            except Exception as error:
                answer.fail(error)
        self._rows.append(tokens_B)
        self.drop_finished()

    def drop_finished(self) -> None:
        """Compute answers that are over no longer; each step does so with those that it ends."""
        going = [row for row, answer in enumerate(self.answers) if answer.finish_reason is None]
        if going and self._reading is not None:
            return  # when all is read
        self.answers = [self.answers[row] for row in going]
        if self._rows is not None and going:
            self._rows.select(going)
        else:
            self._rows = self._reading = None

    def take(self, answers: Collection[Answer]) -> Decoder:
        """These of the answers, in a decoder of their own."""
        places = [row for row, answer in enumerate(self.answers) if answer in answers]
        others = [row for row, answer in enumerate(self.answers) if answer not in answers]
        taken = Decoder(self._model)
        taken.answers = [self.answers[row] for row in places]
        self.answers = [self.answers[row] for row in others]
        if self._rows is not None:
            taken._rows = self._rows.take(places)
            if others:
                self._rows.select(others)
            else:
                self._rows = None
        return taken

    def join(self, other: Decoder) -> None:
        """Go on with the answers of another, too. Both have read their prompts."""
        self.answers = [*self.answers, *other.answers]
        if self._rows is None:
            self._rows = other._rows
        elif other._rows is not None:
            self._rows.join(other._rows)

    def _read(self, joining: Sequence[Answer], most: int | None) -> torch.Tensor | None:
        """The logits of what follows each answer, [B, V]: those that join are beneath the others. None while prompts
        are being read."""
        import torch

        self.answers = [*self.answers, *joining]
        if self._rows is None:
            if joining:
                self._reading = _prompts(self._model, joining)
            return self._read_on(most)
        logits_BV = self._rows.read()
        if joining:
            self._reading, others = _prompts(self._model, joining), self._rows
            new_logits_BV = self._read_on(None)
            others.join(self._rows)
            self._rows, logits_BV = (
                others,
                torch.cat([known for known in (logits_BV, new_logits_BV) if known is not None]),
            )
        return logits_BV

    def _read_on(self, most: int | None) -> torch.Tensor | None:
        assert self._reading is not None
        rows, shared = self._reading
        logits_BV = rows.read(most)
        if logits_BV is None:
            return None
        rows.select(shared)
        self._rows, self._reading = rows, None
        return logits_BV[shared]


def _prompts(model: Any, answers: Sequence[Answer]) -> tuple[Rows, list[int]]:
    """What the answers follow, to be read, equal ones once; and for each answer the row."""
    asked = [(answer.said, answer.adapter) for answer in answers]
    places = {one: place for place, one in enumerate(dict.fromkeys(asked))}
    adapters = [adapter for _, adapter in places if adapter is not None]
    return Rows(model, [prompt for prompt, _ in places], adapters or None), [places[one] for one in asked]


def _logprob(token: int, logits_V: torch.Tensor, count: int) -> Logprob:
    logp_V = logits_V.log_softmax(-1)
    values_K, tokens_K = logp_V.topk(min(count, len(logp_V)))
    top = tuple(zip(tokens_K.tolist(), values_K.tolist(), strict=True))
    return Logprob(token, float(logp_V[token]), top)
