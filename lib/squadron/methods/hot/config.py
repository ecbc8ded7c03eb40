"""Settings of a HoT run."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from squadron.core.config import Config
from squadron.core.rehearsal import AtMost, StandIns
from squadron.data.record_files import RecordsPath
from squadron.llm.batch.budget import SpendingConfig
from squadron.llm.batch.collect import CollectConfig
from squadron.llm.chat import Sampling
from squadron.llm.settings import AnyModel
from squadron.methods.hot.items import ItemsConfig
from squadron.methods.hot.solver_config import SolverConfig
from squadron.methods.hot.tags import Repair
from squadron.serve.annotate import StudyConfig

Mode = Literal["cot", "hot", "question_only", "answer_only", "repeat", "random_tags", "zero_shot"]
MODES: tuple[Mode, ...] = get_args(Mode)
TAGGED: tuple[Mode, ...] = ("hot", "question_only", "answer_only", "random_tags", "zero_shot")
"""Modes whose answers are to have tags in some part."""


class DemonstrationsConfig(Config):
    """Worked examples that prompts show."""

    path: RecordsPath = Field(
        description="rows of {question, highlighted, answer}, or of {dataset, mode, text} with texts as published"
    )
    dataset: str | None = Field(None, description="of a file with several; None: all")
    mode: str = Field("hot", description="of a file with several: what its texts were written for")
    shots: Annotated[int | None, AtMost(2, unset=2)] = Field(None, ge=1, description="so many at most; None: all")

    def rehearse(self, stand_ins: StandIns) -> DemonstrationsConfig:
        """A file of the user's as it is; made up where there is none."""
        from squadron.methods.hot.rehearsal import made_up_demonstrations

        def rows() -> list[dict[str, str]]:
            return made_up_demonstrations(self.dataset or "", self.mode)

        return self.model_copy(update={"path": RecordsPath(stand_ins.rows(self.path, "train", rows))})


class TaskConfig(Config):
    """Questions of one kind with their answers, and what prompts show for them."""

    name: str = Field(min_length=1)
    items: ItemsConfig
    demonstrations: DemonstrationsConfig | None = Field(
        None, description="None: prompts show none, and say what tags look like"
    )


class DrawConfig(Config):
    """Which questions of a task are asked."""

    how: Literal["full", "random", "longest", "shortest"] = Field(
        "random", description="by characters; random ones leave out the `count` longest, as the paper does"
    )
    count: Annotated[int, AtMost(4)] = Field(200, ge=1, description="of each task, unless all are asked")
    seed: int = Field(0, ge=0)


class TaggingConfig(Config):
    """Demonstrations without tags get them by a chat model: first the question, then the answer."""

    model: AnyModel
    collect: CollectConfig = CollectConfig(sampling=Sampling(max_tokens=1024))
    fidelity: float = Field(0.98, ge=0, le=1, description="how much of the words must stay as they are")


class AskedModel(Config):
    """A model, and how its answers are drawn."""

    model: AnyModel
    sampling: Sampling = Sampling(max_tokens=1024)


class ReaderConfig(StudyConfig):
    """The reader's page, and the study of a run."""

    items: Annotated[int, AtMost(4)] = Field(100, ge=1, description="answers to show, right and wrong ones by turns")
    readers: Annotated[int, AtMost(2)] = Field(
        20, ge=1, le=500, description="that the page without a server has items for: reader-1, reader-2, …"
    )
    drawings: Annotated[int, AtMost(2)] = Field(5, ge=0, le=100, description="answers that are drawn as SVG")


class HotConfig(Config):
    """A HoT run."""

    tasks: tuple[TaskConfig, ...] = Field((), description="none: word problems made up by rule")
    draw: DrawConfig = DrawConfig()
    modes: tuple[Mode, ...] = Field(
        ("cot", "hot"), min_length=1, description="the first is what others are compared to"
    )
    models: tuple[AskedModel, ...] = ()
    solver: SolverConfig | None = Field(
        SolverConfig(), description="a small model trained here, on made-up problems, and asked too; null: none"
    )
    samples: int = Field(1, ge=1, description="answers to each question in each mode")
    spending: SpendingConfig = SpendingConfig()
    tagging: TaggingConfig | None = Field(None, description="None: demonstrations have their tags")
    leaks: Literal["refuse", "drop"] = Field(
        "refuse", description="what becomes of a demonstration that shows a question of the test"
    )
    repair: Repair = Field("drop", description="a tag without its partner: no fact, or one to the end of its clause")
    solver_sampling: Sampling = Field(Sampling(temperature=0.0, max_tokens=200), description="of the solver's answers")
    reader: ReaderConfig = ReaderConfig()
    seed: int = Field(0, ge=0, description="of the numbers of random tags")

    @model_validator(mode="after")
    def _names_agree(self) -> HotConfig:
        models = [one.model.name for one in self.models] + ([self.solver.name] if self.solver else [])
        if not models:
            raise ValueError("no model is asked: name one in models, or have one trained by solver={}")
        for names in ([one.name for one in self.tasks], models, self.modes):
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise ValueError(f"{twice[0]} stands there twice")
        return self
