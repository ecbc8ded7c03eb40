"""What rewrites turns, by one interface: rules and joined texts here, trained models, and prompts for chat models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from squadron.core.folder import Folder
from squadron.llm.chat import Message, user
from squadron.methods.rewrite.algorithm import Needs
from squadron.methods.rewrite.config import (
    ChatRewriter,
    JoinRewriter,
    RuleRewriter,
    Seq2SeqRewriter,
    TaggerRewriter,
    WorkerRewriter,
)
from squadron.methods.rewrite.learning import TrainedAmbiguity, TrainedSeq2Seq, TrainedTagger
from squadron.methods.rewrite.records import Turn
from squadron.methods.rewrite.referring import points_elsewhere, rewrite_by_rule

Trained = TrainedTagger | TrainedSeq2Seq
_LONGEST_RESPONSE = 1200
"""Characters of a response that a prompt holds: what is longer is cut, and says so."""


class Rewriter(Protocol):
    """Rewrites turns, each by itself."""

    def rewrite(self, turns: Sequence[Turn]) -> list[str]:
        """A rewrite for each, in their order."""
        ...


class ByRule:
    """Slots carried from turn to turn, and pronouns replaced."""

    def rewrite(self, turns: Sequence[Turn]) -> list[str]:
        """A rewrite for each, in their order."""
        return [rewrite_by_rule(turn) for turn in turns]


class Joined:
    """All that the rewriter is shown, and then the query. A text that a later one holds, as rewrites hold those before
    them, stands there once."""

    def rewrite(self, turns: Sequence[Turn]) -> list[str]:
        """A rewrite for each, in their order."""
        return [
            " ".join(_distinct([*(part for pair in turn.history for part in pair[:2]), turn.query])) for turn in turns
        ]


def open_rewriter(settings: WorkerRewriter, run: Folder, trained: Trained | None = None) -> Rewriter:
    """The rewriter of these settings, loaded; `trained` is what a run has made of one that it trains. Raises InputError
    if there is no such model."""
    if trained is not None:
        return trained.open(run)
    match settings:
        case RuleRewriter():
            return ByRule()
        case JoinRewriter():
            return Joined()
        case TaggerRewriter():
            from squadron.methods.rewrite.tagger import Tagger
            from squadron.methods.rewrite.terms import Thresholds
            from squadron.train.heads import open_headed

            thresholds = Thresholds(settings.take, settings.put, settings.phrases)
            return Tagger(open_headed(str(settings.path)), thresholds)
        case Seq2SeqRewriter():
            from squadron.methods.rewrite import seq2seq

            return seq2seq.Seq2SeqRewriter(
                str(settings.path), max_length=settings.max_length, beams=settings.beams, copies=settings.copies,
                max_new_tokens=settings.max_new_tokens,
            )  # fmt: skip


def open_classifier(name: str, run: Folder, trained: TrainedAmbiguity | None = None) -> Needs | None:
    """What says which queries need their conversation; None for no name."""
    if name == "rules":
        return lambda turns: list(map(points_elsewhere, turns))
    return trained.open(run).need if name and trained is not None else None


def ask(settings: ChatRewriter, turn: Turn) -> tuple[Message, ...]:
    """What a chat model is asked for a turn."""
    history = "".join(f"Query: {pair.query}\nAnswer: {_cut(pair.response)}\n\n" for pair in turn.history)
    return user(settings.prompt.replace("{history}", history).replace("{query}", turn.query))


def read_reply(text: str) -> str:
    """The rewrite in a model's reply: its first line that is not empty, without a heading and quotation marks."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    head, colon, rest = line.partition(":")
    line = rest.strip() if colon and head.strip().lower() in ("rewritten query", "query", "rewrite") else line
    return line[1:-1].strip() if len(line) > 2 and line[0] == line[-1] and line[0] in "\"'`" else line


def _distinct(texts: Sequence[str]) -> list[str]:
    return [text for place, text in enumerate(texts) if text and not any(text in later for later in texts[place + 1 :])]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_RESPONSE else f"{text[:_LONGEST_RESPONSE]} […]"
