"""Who is computed next: answers share a batch where that costs nobody much, and batches take turns by what their
clients have used."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from squadron.llm.decoding.decoder import Answer, Decoder

_LIGHT = 4
"""Answers of one client beside those of others, at most: a client with more has batches of its own."""
_BAND = 512
"""Tokens up to which answers share a batch; longer ones with those of up to four times their length."""
_SPARE = 4
"""One more in so many rows is for clients that have none yet."""
_SPARE_CELLS = 8192
"""Padding of a batch that is borne in any case, in rows times columns."""


class Stream(Protocol):
    """An answer in the making, and whom it is for."""

    answer: Answer

    @property
    def client(self) -> str: ...

    @property
    def cancelled(self) -> bool: ...


class Lines:
    """Answers that wait to be begun, by client."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Any]] = {}

    def __bool__(self) -> bool:
        return any(self._lines.values())

    def __iter__(self) -> Iterator[Any]:
        return iter([stream for line in self._lines.values() for stream in line])

    def add(self, stream: Stream, first: bool = False) -> None:
        """Put one at the end of its client's line, or at its beginning."""
        line = self._lines.setdefault(stream.client, deque())
        (line.appendleft if first else line.append)(stream)

    def take(self, running: Sequence[Stream], most: int) -> Any | None:
        """The next to be begun: of the client that has the fewest at work. `most` of them run together, and a few more
        of clients that have none."""
        rows = Counter(stream.client for stream in running)
        for client in sorted(self._lines, key=lambda one: rows[one]):
            line = self._lines[client]
            while line and line[0].cancelled:
                line.popleft()
            if not line:
                del self._lines[client]
            elif rows.total() < most or (not rows[client] and rows.total() < most + max(1, most // _SPARE)):
                return line.popleft()
        return None


class Batch:
    """Answers that are computed together. One that is `alone` is joined by no other: it has failed in company."""

    def __init__(self, decoder: Decoder, streams: Sequence[Any], used_s: float = 0.0, alone: bool = False) -> None:
        self.decoder, self.streams, self.used_s, self.alone = decoder, list(streams), used_s, alone

    @property
    def reads(self) -> bool:
        """Whether its prompts are still to be read."""
        return not self.decoder.answers or self.decoder.reads

    @property
    def cells(self) -> int:
        """Rows times columns of what it keeps, or will when its prompts have been read."""
        longest = max((stream.answer.length for stream in self.streams), default=0)
        return self.decoder.cells or len(self.streams) * longest

    def clients(self) -> list[str]:
        """The client of each answer."""
        return [stream.client for stream in self.streams]

    def drop_finished(self) -> None:
        """Leave out answers that are over."""
        self.decoder.drop_finished()
        self.streams = [stream for stream in self.streams if stream.answer.finish_reason is None]

    def take(self, streams: Sequence[Any]) -> Batch:
        """These of them, by themselves."""
        chosen = [stream for stream in self.streams if stream in streams]
        self.streams = [stream for stream in self.streams if stream not in streams]
        return Batch(self.decoder.take([stream.answer for stream in chosen]), chosen, self.used_s)

    def join(self, other: Batch) -> None:
        """Compute the answers of another, too."""
        self.decoder.join(other.decoder)
        self.streams += other.streams
        self.used_s = min(self.used_s, other.used_s)


def arrange(batches: Sequence[Batch], spare: int = _SPARE_CELLS) -> list[Batch]:
    """The same answers in as few batches as may be: all of one client share one, if no other is there; else those of
    clients with few. A batch holds answers of similar lengths, so that none is padded to another's: padding is at most
    half of it, or of `spare` cells."""
    held = Counter(client for batch in batches for client in batch.clients())
    apart = [batch for batch in batches if batch.alone or batch.reads]
    together: dict[tuple[str, int], list[Batch]] = defaultdict(list)
    for batch in batches:
        if batch in apart:
            continue
        places: dict[tuple[str, int], list[Any]] = defaultdict(list)
        for stream in batch.streams:
            own = len(held) > 1 and held[stream.client] > _LIGHT
            places[stream.client if own else "", _band(stream.answer)].append(stream)
        *others, last = places.items()
        for place, streams in others:
            together[place].append(batch.take(streams))
        together[last[0]].append(batch)
    joined = []
    for several in together.values():
        first, *more = sorted(several, key=lambda batch: batch.cells // max(1, len(batch.streams)))
        for batch in more:
            rows = len(first.streams) + len(batch.streams)
            columns = max(one.cells // len(one.streams) for one in (first, batch))
            if rows * columns <= max(2 * (first.cells + batch.cells), min(spare, _SPARE_CELLS)):
                first.join(batch)
            else:
                joined.append(first)
                first = batch
        joined.append(first)
    return [*apart, *joined]


def _band(answer: Answer) -> int:
    return (answer.length // _BAND).bit_length() // 2


def prompts(streams: Sequence[Any], most: int) -> Iterator[list[Any]]:
    """Answers whose prompts are read together: of similar lengths, up to so many tokens with their padding. Equal ones
    count once."""
    batch: list[Any] = []
    known: set[tuple[int, ...]] = set()
    for stream in sorted(streams, key=lambda one: one.answer.length):
        answer = stream.answer
        fits = answer.said in known or (len(known) + 1) * answer.length <= most
        if batch and not (fits and _band(answer) == _band(batch[0].answer)):
            yield batch
            batch, known = [], set()
        batch.append(stream)
        known.add(answer.said)
    if batch:
        yield batch
