"""Continuous batching: an engine that answers requests as they come, in a thread of its own, so that none waits for
another's end. Texts are handed on in pieces."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from squadron.core.errors import ConfigError, InputError
from squadron.llm.chat import Sampling
from squadron.llm.decoding.decoder import Answer, Decoder, FinishReason, Logprob
from squadron.llm.decoding.rows import has_rows
from squadron.llm.decoding.sampling import Sampler

if TYPE_CHECKING:
    from squadron.llm.decoding.grammar import Grammar


@dataclass(frozen=True)
class Piece:
    """What has been added to an answer, and how many tokens that has by now. The last piece of one has a
    `finish_reason`, and where the request has brought about its error, `refused`."""

    text: str
    logprobs: tuple[Logprob, ...] = ()
    finish_reason: FinishReason | None = None
    completion_tokens: int = 0
    error: str = ""
    refused: InputError | None = None


@dataclass(eq=False)
class Generation:
    """A request for an answer: `emit` is called with its pieces, from the engine's thread.

    With `streams` there is a piece for what has become certain at each token, else one at the end. Bias, penalties and
    grammar are those of a `Sampler`, `top_logprobs` and `adapter` those of an `Answer`. With `keeps_special`, special
    tokens are part of the text. One that is `cancelled` gets no more pieces.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    emit: Callable[[Piece], None]
    streams: bool = False
    top_logprobs: int | None = None
    grammar: Grammar | None = None
    bias: Mapping[int, float] = field(default_factory=dict)
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    adapter: str | None = None
    keeps_special: bool = False
    cancelled: bool = False


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
        """Take up a request; its pieces come by `emit`."""
        self._waiting.put(generation)

    def close(self) -> None:
        """End the thread; what is not answered by then ends with an error."""
        self._closed.set()
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        import torch

        decoder = Decoder(self._model)
        running: list[_Stream] = []
        with torch.inference_mode():
            while not self._closed.is_set():
                joining = [self._begin(one) for one in self._admit(len(running))]
                running += joining
                if not running:
                    continue
                try:
                    decoder.step([stream.answer for stream in joining])
                except Exception as error:  # a batch that cannot be computed ends its answers, not the server
                    decoder = Decoder(self._model)
                    for stream in running:
                        stream.answer.fail(error)
                for stream in running:
                    stream.emit()
                decoder.drop_finished()
                running = [stream for stream in running if stream.answer.finish_reason is None]
        for stream in [*running, *map(self._begin, iter(self._take, None))]:
            stream.answer.fail(RuntimeError("the server is ending"))
            stream.emit()

    def _begin(self, generation: Generation) -> _Stream:
        return _Stream(generation, self._tokenizer, self._ends, self._context)

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


def check_rows(model: Any, where: str) -> None:
    """Raise ConfigError for a model whose answers cannot share a batch that they join one by one."""
    if not has_rows(model):
        fix = "serve it on a GPU, by vLLM"
        raise ConfigError("requests to this model cannot share a batch here", where=where, fix=fix)


class _Stream:
    """An answer, and the text that its tokens make."""

    def __init__(self, generation: Generation, tokenizer: Any, ends: set[int], context: int) -> None:
        from tokenizers.decoders import DecodeStream

        self._generation, self._tokenizer, self._backend = generation, tokenizer, tokenizer.backend_tokenizer
        self._decode = DecodeStream(skip_special_tokens=not generation.keeps_special)
        self._text, self._sent, self._sent_logprobs = "", 0, 0
        self._stop: int | None = None  # where the first stop begins
        asked, prompt = generation.sampling, generation.prompt
        penalties = generation.frequency_penalty, generation.presence_penalty
        self.answer = Answer(
            prompt,
            Sampler(asked, generation.bias, *penalties, generation.grammar),
            min(asked.max_tokens, context - len(prompt)),
            ends,
            self._add,
            generation.top_logprobs,
            generation.adapter,
        )

    def emit(self) -> None:
        """Hand on what has become certain; the last piece, if the answer is over."""
        try:
            if self._generation.cancelled:
                self.answer.finish_reason = "stop"
            elif self.answer.finish_reason == "error":
                refused = self.answer.refused
                self._generation.emit(Piece("", finish_reason="error", error=self.answer.error, refused=refused))
            elif self.answer.finish_reason is not None:
                self._text = self._text + self._unfinished() if self._stop is None else self._text[: self._stop]
                self._emit(len(self._text))
            elif self._generation.streams:
                self._emit(len(self._text) - self._held_back())
        except Exception as error:  # as where nobody listens any more
            self.answer.fail(error)
            with contextlib.suppress(Exception):
                self._generation.emit(Piece("", finish_reason="error", error=self.answer.error))

    def _add(self, tokens: Sequence[int]) -> bool:
        """Read the last token; whether the text holds a stop. What has been sent holds none, nor a beginning of one."""
        self._text += self._decode.step(self._backend, tokens[-1]) or ""
        stops = self._generation.sampling.stop
        places = [place for stop in stops if (place := self._text.find(stop, self._sent)) >= 0]
        self._stop = min(places, default=None)
        return self._stop is not None

    def _emit(self, upto: int) -> None:
        finish_reason = self.answer.finish_reason
        if finish_reason is None and upto <= self._sent:
            return
        upto = max(upto, self._sent)
        text, logprobs = self._text[self._sent : upto], tuple(self.answer.logprobs[self._sent_logprobs :])
        self._sent, self._sent_logprobs = upto, len(self.answer.logprobs)
        self._generation.emit(Piece(text, logprobs, finish_reason, len(self.answer.tokens)))

    def _unfinished(self) -> str:
        """Text at the end that waits for the rest of a character, which does not come."""
        hidden = not self._generation.keeps_special
        whole = str(self._tokenizer.decode(self.answer.tokens, skip_special_tokens=hidden))
        return whole[len(self._text) :] if whole.startswith(self._text) else ""

    def _held_back(self) -> int:
        """Characters at the end that may be the beginning of a stop."""
        most = 0
        for stop in self._generation.sampling.stop:
            for length in range(min(len(stop) - 1, len(self._text) - self._sent), most, -1):
                if self._text.endswith(stop[:length]):
                    most = length
                    break
        return most
