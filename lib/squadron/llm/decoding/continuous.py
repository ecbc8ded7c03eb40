"""Continuous batching: requests join and leave a batch at every token, so that none waits for another's end (Yu et al.
2022, "Orca").

For models whose cache is plain attention, on any device; what a request is answered does not depend on which others
share its batch. B rows of a batch, T tokens, V tokens of the vocabulary, K alternatives.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from squadron.core.errors import ConfigError
from squadron.llm.chat import Sampling
from squadron.llm.decoding.generation import Rows, gumbel, has_rows, keep_nucleus, make_generator

if TYPE_CHECKING:
    import torch

    from squadron.llm.decoding.grammar import Grammar

Finish = Literal["stop", "length", "error"]


@dataclass(frozen=True)
class Logprob:
    """How likely the token that was taken was, and the likeliest ones in its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Piece:
    """What has been added to an answer, and how many tokens that has by now. The last piece of one has a `finish`."""

    text: str
    logprobs: tuple[Logprob, ...] = ()
    finish: Finish | None = None
    completion_tokens: int = 0
    error: str = ""


@dataclass(eq=False)
class Generation:
    """An answer in the making: `emit` is called with its pieces, from the engine's thread.

    With `streams` there is a piece for what has become certain at each token, else one at the end. `logprobs` is how
    many alternatives are told for each token; None: not even the token's own. `grammar` is what the answer
    keeps to. `bias` is added to the logits of tokens; the penalties are taken off those of tokens that the answer
    holds, for every time, and once, as OpenAI defines them. `adapter` is the one that it is given with, where the model
    has any: then all have one.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    emit: Callable[[Piece], None]
    streams: bool = False
    logprobs: int | None = None
    grammar: Grammar | None = None
    bias: Mapping[int, float] = field(default_factory=dict)
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    adapter: str | None = None
    cancelled: bool = False
    tokens: list[int] = field(default_factory=list)


class Engine:
    """Answers many requests at a time with one model, in a thread of its own.

    `max_rows` is how many share a batch; others wait. `ends` are the tokens that end an answer, `context` is how many
    the model holds.
    """

    def __init__(self, model: Any, tokenizer: Any, ends: set[int], context: int, max_rows: int = 64) -> None:
        self._model, self._tokenizer, self._ends = model, tokenizer, ends
        self._context, self._max_rows = context, max_rows
        self._waiting: queue.SimpleQueue[Generation | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="continuous-batching", daemon=True)
        self._thread.start()

    def submit(self, generation: Generation) -> None:
        """Take up an answer; its pieces come by `emit`."""
        self._waiting.put(generation)

    def close(self) -> None:
        """End the thread; what is not answered by then ends with an error."""
        self._closed.set()
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        import torch

        active: list[_Answer] = []
        rows: Rows | None = None
        with torch.inference_mode():
            while not self._closed.is_set():
                joining = self._admit(len(active))
                try:
                    rows, active = self._step(rows, active, joining)
                except Exception as error:  # a batch that cannot be computed ends its answers, not the server
                    for answer in [*active, *(_Answer(one, self._tokenizer) for one in joining)]:
                        answer.fail(_first_line(error))
                    rows, active = None, []
        waiting = [one for one in iter(self._take, None)]
        for answer in [*active, *(_Answer(one, self._tokenizer) for one in waiting)]:
            answer.fail("the server is ending")

    def _take(self) -> Generation | None:
        """A request that waits, if one does."""
        while not self._waiting.empty():
            if (one := self._waiting.get()) is not None:
                return one
        return None

    def _admit(self, running: int) -> list[Generation]:
        """Requests to begin with now; waits for one if nothing is running."""
        joining: list[Generation] = []
        while running + len(joining) < self._max_rows:
            try:
                one = self._waiting.get(block=not running and not joining)
            except queue.Empty:
                break
            if one is None:
                break
            if not one.cancelled:
                joining.append(one)
        return joining

    def _step(
        self, rows: Rows | None, active: list[_Answer], joining: list[Generation]
    ) -> tuple[Rows | None, list[_Answer]]:
        """One more token for every answer: those that join read their prompts first."""
        logits_BV = rows.read() if rows is not None else None
        if joining:
            adapters = [one.adapter for one in joining if one.adapter is not None]
            new = Rows(self._model, [one.prompt for one in joining], adapters or None)
            new_logits_BV = new.read()
            active = active + [_Answer(one, self._tokenizer) for one in joining]
            if rows is None or logits_BV is None:
                rows, logits_BV = new, new_logits_BV
            else:
                import torch

                rows.join(new)
                logits_BV = torch.cat([logits_BV, new_logits_BV])
        if rows is None or logits_BV is None:
            return None, []
        tokens_B = _choose(logits_BV, active)
        taken = tokens_B.tolist()
        for place, (answer, token) in enumerate(zip(active, taken, strict=True)):
            try:
                answer.add(token, logits_BV[place], self._ends, self._context)
            except Exception as error:  # a token that one of them cannot take is no matter of the others
                answer.fail(_first_line(error))
        going = [place for place, answer in enumerate(active) if not answer.ended]
        if not going:
            return None, []
        rows.append(tokens_B)
        rows.select(going)
        rows.trim()
        return rows, [active[place] for place in going]


def check_joins(model: Any, where: str) -> None:
    """Raise ConfigError for a model whose cache cannot take up new rows: sliding windows, recurrent layers."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
    if not plain or not has_rows(model):
        fix = "serve it on a GPU, by vLLM"
        raise ConfigError("requests to this model cannot share a batch here", where=where, fix=fix)


class _Answer:
    """One row of the batch: how its tokens are drawn, and the text that they make."""

    def __init__(self, generation: Generation, tokenizer: Any) -> None:
        from tokenizers.decoders import DecodeStream

        self._generation, self._tokenizer, self._backend = generation, tokenizer, tokenizer.backend_tokenizer
        self._decode = DecodeStream(skip_special_tokens=True)
        self._text, self._sent = "", 0
        self._pending: list[Logprob] = []
        self._changes = dict(generation.bias)  # what is added to the logits of tokens
        self._generator: torch.Generator | None = None
        self.ended = False

    @property
    def sampling(self) -> Sampling:
        return self._generation.sampling

    def score(self, logits_V: torch.Tensor) -> torch.Tensor:
        """What the next token has the most of: a draw, which is a function of the seed, token by token."""
        scaled_V = logits_V / self.sampling.temperature
        if self.sampling.top_p < 1:
            scaled_V = keep_nucleus(scaled_V[None], self.sampling.top_p)[0]
        if self._generator is None:
            self._generator = make_generator(self.sampling.seed, logits_V.device)
        return scaled_V + gumbel(len(logits_V), self._generator)

    def adjust(self, logits_V: torch.Tensor) -> None:
        """Add biases, take off penalties, and take away what the answer's grammar does not allow."""
        generation = self._generation
        if self._changes:
            tokens: Any = list(self._changes)
            logits_V[tokens] += logits_V.new_tensor(list(self._changes.values()))
        if generation.grammar is not None:
            generation.grammar.mask(logits_V)

    def _penalise(self, token: int) -> None:
        """Note what the next tokens lose by this one."""
        generation = self._generation
        first = token not in generation.tokens if generation.presence_penalty else False
        penalty = generation.frequency_penalty + (generation.presence_penalty if first else 0.0)
        if penalty:
            self._changes[token] = self._changes.get(token, 0.0) - penalty

    def add(self, token: int, logits_V: torch.Tensor, ends: set[int], context: int) -> None:
        """Take a token, and emit what has become certain."""
        generation = self._generation
        if generation.cancelled:
            self.ended = True
            return
        ended = token in ends
        if not ended:
            self._penalise(token)
            generation.tokens.append(token)
            self._text += self._decode.step(self._backend, token) or ""
            if generation.logprobs is not None:
                self._pending.append(_logprob(token, logits_V, generation.logprobs))
            if generation.grammar is not None:
                ended = generation.grammar.accept(token)
        stop = self._find_stop()
        if stop is not None:
            self._text = self._text[:stop]
        full = len(generation.tokens) >= generation.sampling.max_tokens
        full = full or len(generation.prompt) + len(generation.tokens) >= context
        if ended or stop is not None or full:
            self.ended = True
            if stop is None:
                self._text += self._unfinished()
            self._emit(len(self._text), "stop" if ended or stop is not None else "length")
        elif generation.streams:
            self._emit(len(self._text) - self._held_back())

    def fail(self, error: str) -> None:
        """End without an answer."""
        self.ended = True
        self._generation.emit(Piece("", finish="error", error=error))

    def _emit(self, upto: int, finish: Finish | None = None) -> None:
        if finish is None and upto <= self._sent:
            return
        piece = Piece(
            self._text[self._sent : max(upto, self._sent)],
            tuple(self._pending),
            finish,
            len(self._generation.tokens),
        )
        self._sent, self._pending = max(upto, self._sent), []
        self._generation.emit(piece)

    def _unfinished(self) -> str:
        """Text at the end that waits for the rest of a character, which does not come."""
        whole = str(self._tokenizer.decode(self._generation.tokens, skip_special_tokens=True))
        return whole[len(self._text) :] if whole.startswith(self._text) else ""

    def _find_stop(self) -> int | None:
        """Where the first stop begins. Text that has been sent holds none, nor a beginning of one."""
        places = [place for stop in self.sampling.stop if (place := self._text.find(stop, self._sent)) >= 0]
        return min(places) if places else None

    def _held_back(self) -> int:
        """Characters at the end that may be the beginning of a stop."""
        most = 0
        for stop in self.sampling.stop:
            for length in range(min(len(stop) - 1, len(self._text) - self._sent), most, -1):
                if self._text.endswith(stop[:length]):
                    most = length
                    break
        return most


def _choose(logits_BV: torch.Tensor, answers: Sequence[_Answer]) -> torch.Tensor:
    """The next token of each row, [B]: the likeliest at temperature 0, else a draw."""
    for place, answer in enumerate(answers):
        answer.adjust(logits_BV[place])
    drawn = [place for place, answer in enumerate(answers) if answer.sampling.temperature > 0]
    if not drawn:
        return logits_BV.argmax(-1)
    score_BV = logits_BV.clone()
    for place in drawn:
        score_BV[place] = answers[place].score(logits_BV[place])
    return score_BV.argmax(-1)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _logprob(token: int, logits_V: torch.Tensor, count: int) -> Logprob:
    logp_V = logits_V.log_softmax(-1)
    values_K, tokens_K = logp_V.topk(min(count, len(logp_V)))
    top = tuple(zip(tokens_K.tolist(), values_K.tolist(), strict=True))
    return Logprob(token, float(logp_V[token]), top)
