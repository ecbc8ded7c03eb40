"""What a run has left: search over its tools, and the embedder that it has trained, behind OpenAI's interface."""

from __future__ import annotations

from squadron.core.folder import Folder
from squadron.core.run_reader import outputs, settings
from squadron.methods.toolret.config import ToolRetConfig
from squadron.serve.embedding import embedding_service
from squadron.serve.search import SavedIndex, search_service
from squadron.serve.service import Services
from squadron.train.encoders import Encoder

TOOLS = "tools"


def services(folder: Folder) -> Services:
    """The search as `tools`, and the fine-tuned embedder, if there is one, under the name of the run's folder. Raises
    InputError if the run has not come so far."""
    found = outputs(folder, "save_index", SavedIndex)[-1]
    search = search_service(TOOLS, folder / found.path, found.embedder)
    if settings(folder, ToolRetConfig).training is None:
        return Services((search,))
    trained = outputs(folder, "train_embedder", Encoder)[-1]
    return Services((search, embedding_service(folder.name, trained.embedder(folder))))
