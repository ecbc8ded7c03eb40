"""The stages that train what rewrites without a large model."""

from __future__ import annotations

from collections.abc import Sequence

from squadron.core.folder import Folder
from squadron.core.run import Stage
from squadron.data.clustering import hash_ids
from squadron.methods.rewrite.config import Seq2SeqRewriter, TaggerRewriter
from squadron.methods.rewrite.learning import (
    AmbiguityConfig,
    TrainedAmbiguity,
    TrainedSeq2Seq,
    TrainedTagger,
    train_ambiguity,
    train_seq2seq,
    train_tagger,
)
from squadron.methods.rewrite.records import Logs, Turn, turns_of

_VALIDATION = 0.15
"""Share of the conversations that thresholds are chosen on."""


def learn_tagger(stage: Stage, logs: Logs, rewriter: TaggerRewriter) -> TrainedTagger:
    """Train the tagger. Raises as `train_tagger` does."""
    return train_tagger(stage, *lessons(logs, stage.run.folder), rewriter.learning)


def learn_small_model(stage: Stage, logs: Logs, rewriter: Seq2SeqRewriter) -> TrainedSeq2Seq:
    """Train the sequence-to-sequence model. Raises as `train_seq2seq` does."""
    return train_seq2seq(stage, *lessons(logs, stage.run.folder), rewriter.learning)


def learn_ambiguity(stage: Stage, logs: Logs, config: AmbiguityConfig) -> TrainedAmbiguity:
    """Train the classifier. Raises as `train_ambiguity` does."""
    return train_ambiguity(stage, *lessons(logs, stage.run.folder), config)


def lessons(logs: Logs, run: Folder) -> tuple[Sequence[Turn], Sequence[Turn]]:
    """Turns to learn from, and those of other conversations to choose thresholds on, by the conversations' names."""
    conversations = logs.conversations(run, learned=True)
    order = hash_ids([one.key for one in conversations], "validation ").argsort(kind="stable")
    held = {conversations[place].key for place in order[: max(1, round(_VALIDATION * len(conversations)))]}
    turns = list(turns_of(conversations))
    learned = [turn for turn in turns if turn.conversation not in held]
    return learned, [turn for turn in turns if turn.conversation in held]
