"""The models of a stage: each trained on encoded rows from where it starts, or small ones from random weights, and
exported as files that later stages load.

    tune(stage, [Tuning("M1", base, rows, spec)])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from squadron.core.folder import relative
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows, write_rows
from squadron.train.models.artifact import ModelArtifact
from squadron.train.models.builders import FromConfig, PolicyWithReference
from squadron.train.models.random_init import store_small_model
from squadron.train.objectives.layout import SUPERVISED_TYPES
from squadron.train.spec import LoraSettings, TrainSpec
from squadron.train.text.fitting import Fitting, TooLong
from squadron.train.text.tokenizer import store_tokenizer

if TYPE_CHECKING:
    from squadron.train.objectives import Objective

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Tuning:
    """One training: its name, which is its folder too, what it starts from, on which rows of token ids, and how.

    Without an `objective` it is supervised fine-tuning. With `reference` a frozen copy of the start stands beside; with
    adapters the model without them is that copy.
    """

    name: str
    start: ModelArtifact
    rows: ArrowRows
    spec: TrainSpec
    lora: LoraSettings | None = None
    objective: Objective | None = None
    reference: bool = False


class Tuned(NamedTuple):
    """A model that has been trained, and the loss of each step."""

    model: ModelArtifact
    losses: tuple[float, ...]


@dataclass(frozen=True)
class SmallModel:
    """A small model that starts from random weights: its shape, what it learns from, and how; the seed of `spec` draws
    the weights too.

    `encode` makes its supervised rows with the tokenizer that it is given; models of one `lessons` share them.
    `{size}` in `name` stands for the thousands of its parameters.
    """

    name: str
    shape: FromConfig
    encode: Callable[[Any], Iterable[Row]]
    spec: TrainSpec
    lessons: str = "rows"


def tune(stage: Stage, tunings: Sequence[Tuning]) -> list[Tuned]:
    """Train and export each into the stage's folder; finished ones are kept, others resume where they were.

    Raises ConfigError, ResourceError or WorkerError as `train_several` does.
    """
    from squadron.train.multi_run import TrainJob, train_several
    from squadron.train.objectives.language import SupervisedFineTuning

    jobs = []
    for one in tunings:
        policy = one.start.build(stage.run.folder, one.spec, one.lora)
        beside = one.reference and one.lora is None
        jobs.append(
            TrainJob(
                one.name,
                PolicyWithReference(policy, policy) if beside else policy,
                one.objective or SupervisedFineTuning(one.spec.loss_chunk),
                one.rows,
                one.spec,
                tokenizer=policy.path,
            )
        )
    return [
        Tuned(_exported(stage, one, result.name), result.losses)
        for one, result in zip(tunings, train_several(stage, jobs), strict=True)
    ]


def tune_small(stage: Stage, texts: Iterable[str], models: Sequence[SmallModel]) -> list[Tuned]:
    """Train a tokenizer on texts, make every model for it from random weights, and train each on its rows."""
    tokenizer = store_tokenizer(texts, models[0].shape.vocabulary, stage.folder)
    tunings: list[Tuning] = []
    encoded: set[str] = set()  # by this attempt: what is left out is told again after a restart
    for number, one in enumerate(models):
        start = store_small_model(stage, f"untrained/{number}", tokenizer, one.shape, one.spec.seed)
        name = one.name.format(size=f"{(start.parameters or 0) / 1000:.0f}k")
        file = f"{one.lessons}.arrow"
        if file not in encoded:
            encoded.add(file)
            rows = one.encode(start.load_tokenizer(stage.run.folder))
            encode_rows(stage, file, rows, one.spec, "training.max_length", of=one.lessons)
        tunings.append(Tuning(name, start, open_rows(stage, file), one.spec))
    return tune(stage, tunings)


def encode_rows(
    stage: Stage,
    name: str,
    rows: Iterable[Row],
    spec: TrainSpec,
    where: str,
    types: Mapping[str, str] = SUPERVISED_TYPES,
    too_long: TooLong = "leave_out",
    of: str = "",
) -> ArrowRows:
    """Write rows of these `types` as `spec` takes them.

    Those of more than `spec.max_length` tokens are cut or left out, those with nothing to learn are left out. All are
    counted, `of` what they are.

    Raises InputError, at the setting `where` for the length, if none is left.
    """
    fitting = Fitting(spec.max_length, too_long, spec.packing)
    if not write_rows(stage.folder, name, fitting.rows(rows), types):
        raise fitting.none_left("to train on", where)
    for label, count in fitting.counts().items():
        stage.headline(f"{label}, {of}" if of else label, count)
    return open_rows(stage, name)


def open_rows(stage: Stage, name: str) -> ArrowRows:
    """Rows that the stage has written."""
    return ArrowRows(stage.run.folder, [relative(stage.folder, stage.run.folder, name)])


def _exported(stage: Stage, one: Tuning, name: str) -> ModelArtifact:
    start = one.start
    known = {"parameters": start.parameters, "context": start.context, "pad_token_id": start.pad_token_id}
    return ModelArtifact.made(stage, f"{name}/model", name=name, **known)
