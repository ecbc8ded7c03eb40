"""What a run has left that trained an embedder: it, behind OpenAI's interface."""

from __future__ import annotations

from squadron.core.folder import Folder
from squadron.core.run_reader import outputs
from squadron.serve.embedding import embedding_service
from squadron.serve.service import Services
from squadron.train.encoders import Encoder


def services(folder: Folder) -> Services:
    """The fine-tuned embedder under the name of the run's folder. Raises InputError if none has been trained."""
    trained = outputs(folder, "train_embedder", Encoder)[-1]
    return Services((embedding_service(folder.name, trained.embedder(folder)),))
