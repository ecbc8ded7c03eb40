"""The stages of a Rewrite run, in the order of `jobs/rewrite.py`."""

from squadron.methods.rewrite.comparison import compare
from squadron.methods.rewrite.drift import show_drift, time_turns
from squadron.methods.rewrite.lessons import learn_ambiguity, learn_small_model, learn_tagger
from squadron.methods.rewrite.reading import read_logs
from squadron.methods.rewrite.rewriting import rewrite_logs

__all__ = [
    "compare",
    "learn_ambiguity",
    "learn_small_model",
    "learn_tagger",
    "read_logs",
    "rewrite_logs",
    "show_drift",
    "time_turns",
]
