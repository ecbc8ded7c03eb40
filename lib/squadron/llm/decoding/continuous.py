"""Continuous batching: an engine that answers requests as they come, in a thread of its own, so that none waits for
another's end. Texts are handed on in pieces."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from squadron.core.errors import ConfigError, InputError
from squadron.core.work import Usage
from squadron.llm.chat import Sampling
from squadron.llm.decoding.decoder import Answer, Decoder, FinishReason, Logprob
from squadron.llm.decoding.rows import has_rows
from squadron.llm.decoding.sampling import Sampler
from squadron.llm.decoding.schedule import Batch, Lines, arrange, prompts

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
    tokens are part of the text. `client` is whom it is for. One that is `cancelled` gets no more pieces.
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
    client: str = ""
    cancelled: bool = False


_log = logging.getLogger(__name__)
_READ_AT_ONCE, _READ_TOGETHER = 256, 2048
"""Columns of prompts that are read in one step, and tokens, with padding, of prompts that are read together."""
_OF_FREE, _PADDED = 0.4, 8
"""Of the memory that is free, what keys and values take; one in so many of them a batch may have more than it needs."""


class Engine:
    """Answers many requests at a time with one model, in a thread of its own.

    `max_rows` is how many it works on; others wait. `ends` are the tokens that end an answer, `context` is how many the
    model holds, `cells` how many it keeps of all answers together; None: what fits into memory.

    Prompts are read in pieces, between other answers' tokens. Clients share it evenly (`schedule.py`).
    """

    def __init__(
        self, model: Any, tokenizer: Any, ends: set[int], context: int, max_rows: int = 64, cells: int | None = None
    ) -> None:
        self._model, self._tokenizer, self._ends = model, tokenizer, ends
        self._context, self._max_rows = context, max_rows
        self._cells = max(context, cache_cells(model) if cells is None else cells)
        self._arrived: queue.SimpleQueue[Generation | None] = queue.SimpleQueue()
        self._waiting, self._batches, self._usage = Lines(), list[Batch](), Usage()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="continuous-batching", daemon=True)
        self._thread.start()

    def submit(self, generation: Generation) -> None:
        """Take up a request; its pieces come by `emit`."""
        self._arrived.put(generation)

    def close(self) -> None:
        """End the thread; what is not answered by then ends with an error."""
        self._closed.set()
        self._arrived.put(None)
        self._thread.join()

    def _work(self) -> None:
        import torch

        with torch.inference_mode():
            while not self._closed.is_set():
                try:
                    self._receive()
                    self._begin()
                    if batch := min(self._batches, key=self._turn, default=None):
                        self._step(batch)
                except Exception as error:  # a mistake of ours ends what there is, and nothing that comes later
                    _log.exception("the engine fails")
                    self._fail_all(error)
        self._receive()
        self._fail_all(RuntimeError("the server is ending"))

    def _fail_all(self, error: Exception) -> None:
        streams, self._waiting, self._batches = [*self._running(), *self._waiting], Lines(), []
        for stream in streams:
            stream.answer.fail(error)
            stream.emit()

    def _receive(self) -> None:
        """Take in requests that have come; wait for one if there is nothing else to do."""
        while not self._arrived.empty() or not (self._batches or self._waiting or self._closed.is_set()):
            if (one := self._arrived.get()) is not None:
                self._waiting.add(_Stream(one, self._tokenizer, self._ends, self._context))

    def _begin(self) -> None:
        """Begin with as many as may run."""
        running, joining, longest = self._running(), list[_Stream](), 0
        while stream := self._waiting.take(running, self._max_rows):
            longest = max(longest, stream.answer.length)
            if running and self._kept() + (len(joining) + 1) * longest > self._cells:
                self._waiting.add(stream, first=True)
                break
            running.append(stream)
            joining.append(stream)
        used_s = min((batch.used_s for batch in self._batches), default=0.0)
        alone = [[stream] for stream in joining if stream.failed]
        together = prompts([stream for stream in joining if not stream.failed], _READ_TOGETHER)
        for streams in (*alone, *together):
            self._batches.append(Batch(Decoder(self._model), streams, used_s, alone=streams[0].failed))

    def _step(self, batch: Batch) -> None:
        """Another token for each answer of a batch, or a piece of their prompts."""
        started, clients = time.perf_counter(), batch.clients()
        fresh = not batch.decoder.answers
        try:
            batch.decoder.step([stream.answer for stream in batch.streams] if fresh else (), most=_READ_AT_ONCE)
        except Exception as error:
            self._recover(batch, error)
        for stream in batch.streams:
            stream.emit()
        batch.drop_finished()
        if fresh or len(batch.streams) < len(clients) or not batch.decoder.reads:
            self._batches = arrange([one for one in self._batches if one.streams], self._cells // _PADDED)
        self._usage.note(clients, seconds := time.perf_counter() - started)
        batch.used_s += seconds
        self._make_room()

    def _recover(self, batch: Batch, error: Exception) -> None:
        """A batch that cannot be computed: its answers go on one by one, so that each ends by its own error alone."""
        if len(batch.streams) == 1:
            batch.streams[0].answer.fail(error)
            return
        for stream in batch.streams:
            stream.failed = True
            self._waiting.add(stream, first=True)
        batch.streams, batch.decoder = [], Decoder(self._model)

    def _make_room(self) -> None:
        """Where memory is short, the last answer of who holds the most waits again: it is read anew, and goes on."""
        while self._kept() > self._cells and len(self._running()) > 1:
            batch = max(self._batches, key=lambda one: one.cells)
            if batch.reads:
                self._batches.remove(batch)
                streams = batch.streams
            else:
                streams = batch.streams[-1:]
                batch.take(streams)
                self._batches = [one for one in self._batches if one.streams]
            for stream in streams:
                self._waiting.add(stream, first=True)

    def _kept(self) -> int:
        return sum(batch.cells for batch in self._batches)

    def _running(self) -> list[_Stream]:
        return [stream for batch in self._batches for stream in batch.streams]

    def _turn(self, batch: Batch) -> tuple[float, float]:
        """The lower, the sooner: what the client has used that has used the least, and the batch itself."""
        return min(map(self._usage.of, set(batch.clients()))), batch.used_s


def cache_cells(model: Any) -> int:
    """How many tokens a model may keep the keys and values of, in a share of the memory that is free."""
    import os

    import torch

    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    if model.device.type == "cuda":
        return int(torch.cuda.mem_get_info(model.device)[0] * _OF_FREE // each)
    return int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * _OF_FREE // each)


def check_rows(model: Any, where: str) -> None:
    """Raise ConfigError for a model whose answers cannot share a batch that they join one by one."""
    if not has_rows(model):
        fix = "serve it on a GPU, by vLLM"
        raise ConfigError("requests to this model cannot share a batch here", where=where, fix=fix)


class _Stream:
    """An answer, and the text that its tokens make."""

    def __init__(self, generation: Generation, tokenizer: Any, ends: set[int], context: int) -> None:
        from tokenizers.decoders import DecodeStream

        self.failed = False
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

    @property
    def client(self) -> str:
        return self._generation.client

    @property
    def cancelled(self) -> bool:
        return self._generation.cancelled

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
        before, stops = len(self._text), self._generation.sampling.stop
        self._text += self._decode.step(self._backend, tokens[-1]) or ""
        start = max(self._sent, before - max(map(len, stops), default=0))
        places = [place for stop in stops if (place := self._text.find(stop, start)) >= 0]
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
