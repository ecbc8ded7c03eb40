"""Rewrite and Fusion: queries of conversations made ones that stand by themselves, by rules and by models, compared.

python jobs/rewrite.py                                           # the demo, on this machine
squadron run rewrite own logs.0.path=conversations.jsonl
squadron run rewrite paper --profile 8xh100 --address auto

arXiv 2502.18860.
"""

from __future__ import annotations

from squadron.core.cli import run_job
from squadron.core.job import Goal, job
from squadron.core.run import Run
from squadron.methods.rewrite.config import RewriteConfig, Seq2SeqRewriter, Setting, TaggerRewriter, is_trained
from squadron.methods.rewrite.endpoint import services
from squadron.methods.rewrite.rehearsal import REPLIES
from squadron.methods.rewrite.rewriters import Trained
from squadron.methods.rewrite.stages import (
    compare,
    learn_ambiguity,
    learn_small_model,
    learn_tagger,
    read_logs,
    rewrite_logs,
    show_drift,
    time_turns,
)

NEEDS = ("ray", "torch", "transformers", "sentence_transformers", "bm25s", "ir_measures", "pyarrow")
METRICS: dict[str, Goal] = {
    "cosine": "max", "bertscore": "max", "rouge1": "max", "rougel": "max", "slots": "max",
}  # fmt: skip


@job(RewriteConfig, requires=NEEDS, metrics=METRICS, replies=REPLIES, services=services)
def rewrite(run: Run, config: RewriteConfig) -> None:
    """Queries of a conversation rewritten, by both strategies, and measured against those of people."""
    settings, drift = config.settings, config.drift
    logs = run.stage(read_logs, config.logs, config.world)
    trained: dict[str, Trained] = {}
    for one in config.rewriters:
        if isinstance(one, TaggerRewriter) and is_trained(one):
            trained[one.name] = run.stage(learn_tagger, logs, one)
        elif isinstance(one, Seq2SeqRewriter) and is_trained(one):
            trained[one.name] = run.stage(learn_small_model, logs, one)
    ambiguity = run.stage(learn_ambiguity, logs, config.ambiguity) if "trained" in config.classifiers else None
    rewrites = tuple(
        run.stage(
            rewrite_logs, logs, one, settings, config.first_turn, drift, config.work, trained.get(one.name), ambiguity
        )
        for one in config.rewriters
    )
    run.stage(compare, logs, rewrites, config.evaluation)
    if drift.conversations:
        run.stage(show_drift, logs, rewrites, drift, config.evaluation)
    first = Setting(strategy=config.strategies[0], k=config.ks[0])
    learned = tuple(trained.values())
    run.stage(time_turns, logs, config.rewriters, first, config.first_turn, config.latency.turns, learned)


if __name__ == "__main__":
    run_job(rewrite)
