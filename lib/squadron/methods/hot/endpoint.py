"""What a run has left: the reader's page at `/reader`, and the model that it trained, if it did."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.run_reader import outputs
from squadron.methods.hot.reader_page import CHOICES, STUDY, ArmResult, ReaderPage, page, summarise
from squadron.serve.annotate import Study, StudyItem
from squadron.serve.annotate_page import study_page, study_routes
from squadron.serve.service import Page, Route, Service, Services
from squadron.serve.trained import model_service
from squadron.train.models.artifact import ModelArtifact

PAGE_STAGE, MODEL_STAGE = "make_reader_page", "train_solver"
READER = "reader"


class SummaryRequest(Config):
    """Asks for the study as it stands."""


class SummaryAnswer(Config):
    """By arm what readers did who have judged all of their items, and how many verdicts they gave."""

    verdicts: int
    arms: tuple[ArmResult, ...]


class ReaderStudy(Study):
    """The study of a run."""

    def summary(self, request: SummaryRequest) -> SummaryAnswer:
        """Time and accuracy by arm."""
        records = self.finished()
        return SummaryAnswer(verdicts=len(records), arms=tuple(summarise(self.items, records)))


@dataclass(frozen=True)
class Load:
    """Loads the study of a run."""

    run: Folder
    found: ReaderPage

    def __call__(self) -> ReaderStudy:
        self.found.locate(self.run)
        rows = (self.run / self.found.path).read_json("items.json")["items"]
        items = [StudyItem.model_validate(row) for row in rows]
        return ReaderStudy(items, self.run / STUDY, self.found.config, tuple(CHOICES))


def services(folder: Folder) -> Services:
    """The reader's study, and the trained model under the name of the run's folder. Raises InputError if the run has
    not come so far."""
    found = outputs(folder, PAGE_STAGE, ReaderPage)[-1]
    offered = [reader_service(folder, found)] if found.items else []
    with contextlib.suppress(InputError):  # most runs train none
        offered.append(model_service(folder, outputs(folder, MODEL_STAGE, ModelArtifact)[-1]))
    if not offered:
        raise InputError("no reply has facts to read, and nothing was trained", where=str(folder))
    return Services(tuple(offered))


def reader_service(folder: Folder, found: ReaderPage) -> Service:
    """The study of a run's answers, with its page."""
    shown = Page("/reader", "The reader's page: is an answer right?", study_page(page()))
    said = "time and accuracy of readers, by arm"
    summary = Route("/v1/study/summary", "summary", SummaryRequest, SummaryAnswer, said, example={})
    return Service(READER, Load(folder, found), (*study_routes(), summary), pages=(shown,), max_parallel=8)
