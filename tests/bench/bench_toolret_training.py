"""The packaged MiniLM before and after fine-tuning, on tools of MetaTool and Seal-Tools that it never saw.

python tests/bench/bench_toolret_training.py [MetaTool] [Seal-Tools] [training.rows.sampling.count=900 …]

Bar: nDCG@10 rises by 10 points on tools that were kept out. Neither set has instructions. Hard negatives are mined by
the model itself. Each learning rate trains a model of its own; the one is shown that ranks best for queries of tools
that were kept apart to choose by, which are not those that it is tested on. Takes half an hour a set on two free cores.
The run folders stay: given again after any end, it goes on where it was.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from squadron.core.cli import main

ROOT = Path(__file__).resolve().parents[2]
DATA, RUNS = ROOT.parent / "shared" / "data" / "toolret", ROOT / "runs" / "bench" / "toolret-training"
SETS = {
    "MetaTool": ("metatool_tools.json", "metatool_queries.csv.gz", "metatool_multi_tool_queries.json"),
    "Seal-Tools": ("sealtools_tool.jsonl.gz", "sealtools_test_in_domain.jsonl.gz"),
}
RATES, BATCH, NEGATIVES, ROWS = (5e-5, 2e-4), 64, 2, 6400


def learn(name: str, rate: float, words: list[str]) -> list[dict[str, Any]]:
    """The gains of one set and learning rate."""
    tools, *queries = (str(DATA / file) for file in SETS[name])
    one_set = {"name": name, "tools": {"path": tools}, "queries": [{"path": path} for path in queries]}
    learning = "training.learning.contrastive"
    settings: dict[str, Any] = {
        "sets": [one_set],
        "instructions": [False],
        "latency.queries": 0,
        "agent": None,
        "training.rows.sampling.count": ROWS,
        "training.rows.negatives.count": 5,
        "training.rows.negatives.embedder.provider": "packaged",
        "training.learning.instructed": [False],
        f"{learning}.negatives": NEGATIVES,
        f"{learning}.texts_at_once": 64,
        f"{learning}.training.batch_size": BATCH,
        f"{learning}.training.optimizer.learning_rate": rate,
        f"{learning}.training.checkpoint.every": 10,
    }
    given = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    run = RUNS / f"{name}-{rate:g}"
    if status := main(["run", "toolret", "train", *given, *words, "--run", str(run)]):
        sys.exit(status)
    done = max(run.glob("stages/compare_learned-*/done.json"), key=lambda path: path.stat().st_mtime)
    gains: list[dict[str, Any]] = json.loads(done.read_text())["output"]["gains"]
    return gains


def part(gains: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(one for one in gains if one["part"] == name and one["category"] == "all")


def report(name: str, words: list[str]) -> bool:
    """Show the model that was chosen, and return whether the bar is met."""
    found = {rate: learn(name, rate, words) for rate in RATES}
    best = max(RATES, key=lambda rate: part(found[rate], "validation")["after"]["mean"])
    for kind in ("validation", "unseen"):
        before, after, gained = (part(found[best], kind)[key] for key in ("before", "after", "difference"))
        print(
            f"{name}, learning rate {best:g}, {kind}: {before['count']:,} queries: nDCG@10 {before['mean']:.3f} -> "
            f"{after['mean']:.3f}, {gained['mean']:+.3f} ({gained['low']:+.3f} to {gained['high']:+.3f})"
        )
    return bool(part(found[best], "unseen")["difference"]["mean"] >= 0.1)


if __name__ == "__main__":
    chosen = [word for word in sys.argv[1:] if word in SETS] or list(SETS)
    met = [report(name, [word for word in sys.argv[1:] if word not in SETS]) for name in chosen]
    sys.exit(not all(met))
