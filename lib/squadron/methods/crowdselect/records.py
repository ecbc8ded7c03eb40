"""What the stages of a CrowdSelect run hand on to each other. Files are named relative to the run folder."""

from __future__ import annotations

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.evaluate.summary import Estimate
from squadron.llm.batch.collect import Answers
from squadron.llm.settings import AnyModel


class ResponseModel(Config):
    """A model whose answers are scored."""

    name: str
    family: str | None
    size_b: float | None


class Pool(Config):
    """Instructions to choose from and some kept out, and the answers that they came with, if they did."""

    questions: str
    count: int
    held_out: str
    held_out_count: int
    answers: tuple[Answers, ...] = ()
    crowd: tuple[ResponseModel, ...] = ()


class ResponseModels(Config):
    """Who answers: the models to ask, and what students start from. Of a crowd `inside_run`, folders are named relative
    to the run folder."""

    models: tuple[AnyModel, ...]
    inside_run: bool = False
    base: str | None = None
    base_inside_run: bool = False

    def at(self, run: Folder) -> tuple[AnyModel, ...]:
        """The models as they can be opened."""
        if not self.inside_run:
            return self.models
        return tuple(model.model_copy(update={"path": run.file(model.path)}) for model in self.models)  # type: ignore[union-attr]


class Collected(Config):
    """Every model's answers to every instruction, in the order of `crowd`."""

    crowd: tuple[ResponseModel, ...]
    answers: tuple[Answers, ...]


class Embeddings(Config):
    """A .npy file of vectors, a row an instruction."""

    file: str
    dimensions: int


class Choice(Config):
    """What one arm picked: rows of `instruction`, `response` and what they scored."""

    arm: str
    seed: int
    file: str
    count: int


class Selection(Config):
    """What every arm picked."""

    choices: tuple[Choice, ...]


class Student(Config):
    """A model trained on a choice."""

    name: str
    arm: str
    seed: int
    path: str
    steps: int
    loss: float


class Students(Config):
    """All students, and the model that they started from."""

    base: str
    base_inside_run: bool
    students: tuple[Student, ...]


class StudentScores(Config):
    """What each arm's students score on the instructions kept out, and how far CrowdSelect's are above random's."""

    arms: dict[str, Estimate]
    difference: Estimate | None
