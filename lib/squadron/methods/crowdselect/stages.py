"""The stages of a CrowdSelect run, in the order of `jobs/crowdselect.py`."""

from squadron.methods.crowdselect.answers import collect_answers, score_answers
from squadron.methods.crowdselect.embedding import embed_instructions
from squadron.methods.crowdselect.pool import read_pool
from squadron.methods.crowdselect.response_models import prepare_models
from squadron.methods.crowdselect.selection import select
from squadron.methods.crowdselect.students import compare_students, train_students

__all__ = [
    "collect_answers", "compare_students", "embed_instructions", "prepare_models", "read_pool", "score_answers",
    "select", "train_students",
]  # fmt: skip
