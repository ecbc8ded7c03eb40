"""The stages of a self-rewarding run, in the order of `jobs/self_rewarding.py`."""

from squadron.methods.self_rewarding.base import prepare_base
from squadron.methods.self_rewarding.datasets import build_lessons, read_problems
from squadron.methods.self_rewarding.evaluation import compare, evaluate
from squadron.methods.self_rewarding.rounds import optimize, prefer_solutions, prefer_steps
from squadron.methods.self_rewarding.tuning import fine_tune

__all__ = [
    "build_lessons", "compare", "evaluate", "fine_tune", "optimize", "prefer_solutions", "prefer_steps", "prepare_base",
    "read_problems",
]  # fmt: skip
