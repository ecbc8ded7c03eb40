"""Rankings that a stage leaves for later ones. Q queries, K places of a ranking."""

from __future__ import annotations

import io
from typing import Any, Self

import numpy as np

from squadron.core.artifacts import Artifact
from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.run import Stage
from squadron.retrieval.ranking import Ranking


class StoredRanking(Config):
    """A ranking as two .npy files, (queries, places)."""

    places: Artifact
    scores: Artifact

    @classmethod
    def write(cls, stage: Stage, ranking: Ranking, prefix: str = "", **more: Any) -> Self:
        """Write a ranking into the stage's folder."""
        artifacts = {}
        for name, array in (("places", ranking.places_QK), ("scores", ranking.scores_QK)):
            stream = io.BytesIO()
            np.save(stream, array, allow_pickle=False)
            stage.folder.write_bytes(f"{prefix}{name}.npy", stream.getvalue())
            artifacts[name] = Artifact.made(stage, f"{prefix}{name}.npy")
        return cls(**artifacts, **more)

    def ranking(self, run: Folder) -> Ranking:
        """Raises InputError if the files are not what was written."""
        for artifact in (self.places, self.scores):
            artifact.locate(run)
        arrays = [np.load(run.local(one.path), allow_pickle=False) for one in (self.places, self.scores)]
        return Ranking(*arrays)
