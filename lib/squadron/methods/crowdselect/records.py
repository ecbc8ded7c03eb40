"""What the stages of a CrowdSelect run hand on to each other. Files are named relative to the run folder."""

from __future__ import annotations

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.data.rows import RowsFile
from squadron.evaluate.summary import Estimate
from squadron.llm.batch.collect import Answers
from squadron.llm.settings import AnyModel, HfModel
from squadron.train.models.artifact import ModelArtifact


class ResponseModel(Config):
    """A model whose answers are scored."""

    name: str
    family: str | None
    size_b: float | None


class Pool(Config):
    """Instructions to choose from and some kept out, and the answers that they came with, if they did."""

    questions: RowsFile
    held_out: RowsFile
    answers: tuple[Answers, ...] = ()
    crowd: tuple[ResponseModel, ...] = ()


class CrowdMember(Config):
    """A small model of this run that answers."""

    family: str
    model: ModelArtifact


class ResponseModels(Config):
    """What this run has trained to answer, if it has, and what students start from."""

    crowd: tuple[CrowdMember, ...] = ()
    base: ModelArtifact | None = None

    def at(self, run: Folder, asked: tuple[AnyModel, ...]) -> tuple[AnyModel, ...]:
        """The models that answer, as they can be opened: those of the settings, or the small ones."""
        return asked or tuple(
            HfModel(
                name=one.model.name,
                family=one.family,
                size_b=(one.model.parameters or 0) / 1e9,
                path=one.model.locate(run),
                batch_size=128,
            )
            for one in self.crowd
        )


class Collected(Config):
    """Every model's answers to every instruction, in the order of `crowd`."""

    crowd: tuple[ResponseModel, ...]
    answers: tuple[Answers, ...]


class Embeddings(Config):
    """A .npy file of vectors, a row an instruction."""

    file: str
    dimensions: int


class Choice(RowsFile):
    """What one arm picked: rows of `instruction`, `response` and what they scored."""

    arm: str
    seed: int


class Selection(Config):
    """What every arm picked."""

    choices: tuple[Choice, ...]


class Student(Config):
    """A model trained on a choice."""

    arm: str
    seed: int
    model: ModelArtifact
    steps: int
    loss: float


class Students(Config):
    """All students, and the model that they started from."""

    base: ModelArtifact
    students: tuple[Student, ...]


class StudentScores(Config):
    """What each arm's students score on the instructions kept out, and how far CrowdSelect's are above random's."""

    arms: dict[str, Estimate]
    difference: Estimate | None
