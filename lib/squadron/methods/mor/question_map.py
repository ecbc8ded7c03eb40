"""A linear map of questions' vectors, learned so that a question's vector comes nearer to those of its answers.

Any embedder's vectors can be mapped, those of an address too; the nodes' vectors stay as they are.

D nodes that may be answers, Q questions, E dimensions, B questions of a batch, N drawn nodes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.rehearsal import AtMost
from squadron.core.run import Stage
from squadron.retrieval.vectors import Vectors
from squadron.train.batching.batches import Row, RowSource
from squadron.train.models.artifact import ModelArtifact
from squadron.train.spec import OptimizerConfig, ScheduleConfig, TrainSpec

if TYPE_CHECKING:
    import torch

    from squadron.train.checkpoints.checkpoint import Reader

NAME = "question-map"
_CONFIG, _WEIGHTS, _CHOSEN, _KEY = "config.json", "model.safetensors", "chosen.json", "change.weight"


class QuestionMapConfig(Config):
    """How questions' vectors are mapped."""

    scale: float = Field(20.0, gt=0, description="cosines are multiplied by it in the loss")
    negatives: Annotated[int, AtMost(8)] = Field(255, ge=1, description="wrong nodes drawn next to a right one")
    passes: Annotated[int, AtMost(2)] = Field(30, ge=1, description="times each question is learned from")
    choices: Annotated[int, AtMost(2)] = Field(
        10,
        ge=1,
        description="states among which validation questions choose, by Hit@1; the unchanged vectors are one more",
    )
    training: TrainSpec = TrainSpec(
        batch_size=64,
        micro_batch_size=64,
        optimizer=OptimizerConfig(learning_rate=1e-3, betas=(0.9, 0.999)),
        schedule=ScheduleConfig(kind="constant", warmup_ratio=0.0),
    )


class Example(NamedTuple):
    """A question by the row of its vector, the rows of the nodes that may answer it, and of those that do."""

    question: int
    allowed_D: np.ndarray
    right_D: np.ndarray


class QuestionMap(ModelArtifact):
    """A map that was learned."""

    def open(self, run: Folder) -> OpenedMap:
        """What maps vectors by it. Raises InputError if its files are damaged."""
        from safetensors.numpy import load_file

        folder = Path(self.locate(run))
        try:
            return OpenedMap(load_file(folder / _WEIGHTS)[_KEY])
        except (OSError, KeyError) as error:
            what = f"it is no map of questions: {error}"
            raise InputError(what, where=str(folder), fix="give the folder of a learned one") from None


class LearnedMap(Config):
    """A map, and the share of validation questions whose nearest node is right, by step; at 0 without it."""

    model: QuestionMap
    hits: dict[int, float]
    losses: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class OpenedMap:
    """Adds to a vector what was learned, and scales it to length 1."""

    change_EE: np.ndarray

    def apply(self, vectors_QE: np.ndarray) -> np.ndarray:
        """The mapped vectors. Raises InputError for vectors of other dimensions."""
        if vectors_QE.shape[1] != len(self.change_EE):
            what = f"vectors of {vectors_QE.shape[1]} dimensions; it maps {len(self.change_EE)}"
            raise InputError(what, where="scorer", fix="learn it with this embedder")
        mapped_QE = vectors_QE + vectors_QE @ self.change_EE.T
        length_Q1 = np.linalg.norm(mapped_QE, axis=1, keepdims=True)
        found: np.ndarray = (mapped_QE / np.maximum(length_Q1, 1e-12)).astype(np.float32)
        return found


def fit_question_map(
    stage: Stage,
    nodes: Vectors,
    questions: Vectors,
    learned: Sequence[Example],
    validation: Sequence[Example],
    config: QuestionMapConfig,
) -> LearnedMap:
    """Learn the map, and keep the state whose nearest node is right most often on `validation`; resumes where it was.

    Raises InputError if no question has a right node next to a wrong one; and as `train_several` does.
    """
    from squadron.train.multi_run import TrainJob, train_several
    from squadron.train.objectives import per_row

    useful = tuple(one for one in learned if 0 < len(one.right_D) < len(one.allowed_D))
    if not useful:
        raise InputError("no question has an answer next to other nodes", where="scorer", fix="give more questions")
    run = stage.run.folder
    rows = DrawnPairs(run, nodes, questions, useful, config.passes, config.negatives, config.training.seed)
    spec = config.training.model_copy(update={"epochs": 1.0})
    steps = spec.steps or RowSource(rows).steps(spec)
    every = max(1, steps // config.choices)
    kept = spec.checkpoint.model_copy(update={"every": every, "keep_last": steps // every + 2, "keep_best": False})
    build = BuildMap(nodes.dimensions)
    identity = f"{build} {config.scale} {nodes.sha256} {questions.sha256}"
    job = TrainJob(
        NAME, build, per_row(partial(nearest_is_right, config.scale)), rows,
        spec.model_copy(update={"checkpoint": kept}), length=None, identity=identity,
        export=partial(_export, build, stage.folder / NAME, run, nodes, questions, tuple(validation)),
    )  # fmt: skip
    (result,) = train_several(stage, [job])
    model = QuestionMap.made(stage, f"{NAME}/model", name=NAME)
    hits = json.loads(Path(model.locate(run), _CHOSEN).read_text())["hits"]
    return LearnedMap(model=model, hits=hits, losses=result.losses)


@dataclass(frozen=True)
class BuildMap:
    """Makes the map that changes nothing. Travels to workers."""

    dimensions: int

    def __call__(self) -> Any:
        import torch

        change = torch.nn.Linear(self.dimensions, self.dimensions, bias=False)
        torch.nn.init.zeros_(change.weight)
        return torch.nn.ModuleDict({"change": change})


@dataclass(frozen=True)
class DrawnPairs(Sequence[Row]):
    """A row for each question and pass: its vector, that of a right node, and those of wrong ones of the same types,
    drawn by the number of the row alone."""

    run: Folder
    nodes: Vectors
    questions: Vectors
    examples: tuple[Example, ...]
    passes: int
    negatives: int
    seed: int

    def __len__(self) -> int:
        return len(self.examples) * self.passes

    def __getitem__(self, number: Any) -> Any:
        draw, one = np.random.default_rng([self.seed, number]), self.examples[number % len(self.examples)]
        wrong_N = _draw_wrong(draw, one, self.negatives)
        place_N = np.concatenate([draw.choice(one.right_D, 1), wrong_N])
        return {
            "question": np.array(_read(self.run, self.questions)[one.question]),
            "nodes": _read(self.run, self.nodes)[place_N],
        }

    def __iter__(self) -> Iterator[Row]:
        return (self[number] for number in range(len(self)))


def nearest_is_right(
    scale: float, model: Any, batch: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The cross-entropy of the right node, the first of each row, among those of the row."""
    import torch

    mapped_BE = torch.nn.functional.normalize(batch["question"] + model["change"](batch["question"]), dim=-1)
    logits_BN = scale * torch.einsum("be,bne->bn", mapped_BE, batch["nodes"])
    right_B = torch.zeros(len(logits_BN), dtype=torch.long, device=logits_BN.device)
    accuracy = (logits_BN.argmax(1) == 0).float().mean()
    return torch.nn.functional.cross_entropy(logits_BN, right_B), {"accuracy": accuracy}


def _draw_wrong(draw: np.random.Generator, one: Example, count: int) -> np.ndarray:
    """Wrong nodes, with replacement. Right ones that are drawn are drawn again: they are few among many."""
    found = draw.choice(one.allowed_D, count)
    while len(again := np.flatnonzero(np.isin(found, one.right_D))):
        found[again] = draw.choice(one.allowed_D, len(again))
    return found


@functools.lru_cache(maxsize=4)
def _read(run: Folder, vectors: Vectors) -> np.ndarray:
    return vectors.read(run)


def _export(
    build: BuildMap,
    store: Folder,
    run: Folder,
    nodes: Vectors,
    questions: Vectors,
    held: Sequence[Example],
    reader: Reader,
    folder: Path,
) -> None:
    """Write the state with most hits on what was held out; of equal ones, the first. The last, if nothing was."""
    from safetensors.torch import save_file

    from squadron.train.checkpoints.checkpoint import Reader as Open
    from squadron.train.checkpoints.commits import complete_steps
    from squadron.train.checkpoints.export import restored

    chosen, hits = restored(build, reader), dict[int, float]()
    for step in [0, *complete_steps(store)] if held else []:
        if step:
            with Open(store, step) as saved:
                model = restored(build, saved)
        else:
            model = build()
        mapped = OpenedMap(model.state_dict()[_KEY].numpy())
        hits[step] = _hits(mapped, nodes.read(run), questions.read(run), held)
        if hits[step] > max((hit for other, hit in hits.items() if other < step), default=-1.0):
            chosen = model
    save_file({_KEY: chosen.state_dict()[_KEY].contiguous()}, folder / _WEIGHTS, metadata={"format": "pt"})
    (folder / _CHOSEN).write_text(json.dumps({"hits": hits}))
    (folder / _CONFIG).write_text(json.dumps({"dimensions": build.dimensions}))


def _hits(mapped: OpenedMap, nodes_DE: np.ndarray, questions_QE: np.ndarray, held: Sequence[Example]) -> float:
    """The share of questions whose nearest node is right."""
    right = []
    for one in held:
        vector_E = mapped.apply(questions_QE[one.question][None])[0]
        right.append(one.allowed_D[(nodes_DE[one.allowed_D] @ vector_E).argmax()] in one.right_D)
    return float(np.mean(right))
