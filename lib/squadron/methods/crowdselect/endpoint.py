"""What a run has left: a student of the picked instructions behind OpenAI's interface, and the embedder."""

from __future__ import annotations

from squadron.core.folder import Folder
from squadron.core.run_reader import outputs, settings
from squadron.methods.crowdselect.config import CrowdSelectConfig
from squadron.methods.crowdselect.records import Students
from squadron.serve.embedding import embedding_service
from squadron.serve.service import Services
from squadron.serve.trained import model_service


def services(folder: Folder) -> Services:
    """The first student of CrowdSelect's choice under the name of the run's folder, and the embedder as
    `embedder`. Raises InputError if no student has been trained."""
    students = outputs(folder, "train_students", Students)[-1].students
    student = next((one for one in students if one.arm == "crowdselect"), students[0])
    embedder = settings(folder, CrowdSelectConfig).embedding.model
    return Services((model_service(folder, student.model), embedding_service("embedder", embedder)))
