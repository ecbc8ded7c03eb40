"""The packaged MiniLM before and after fine-tuning, on tools of MetaTool and Seal-Tools that it never saw.

Bar: nDCG@10 rises by 10 points on tools that were kept out. Takes half an hour on two free cores.

python tests/bench/bench_toolret_training.py [training.learning.contrastive.training.steps=100 …]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from squadron.core.cli import main

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "toolret"
SETS = [
    {
        "name": "MetaTool",
        "tools": {"path": str(DATA / "metatool_tools.json")},
        "queries": [
            {"path": str(DATA / "metatool_queries.csv.gz")},
            {"path": str(DATA / "metatool_multi_tool_queries.json")},
        ],
    },
    {
        "name": "Seal-Tools",
        "tools": {"path": str(DATA / "sealtools_tool.jsonl.gz")},
        "queries": [{"path": str(DATA / "sealtools_test_in_domain.jsonl.gz")}],
    },
]

if __name__ == "__main__":
    training = {"rows": {"sampling": {"count": 3200}}, "learning": {"instructed": [False]}}
    agent = {"calls": str(DATA / "sealtools_test_in_domain.jsonl.gz"), "queries": 200, "retrievers": ["BM25", "MiniLM"]}
    parts = {"sets": SETS, "training": training, "agent": agent, "instructions": [False], "latency": {"queries": 0}}
    with tempfile.TemporaryDirectory() as scratch:
        words = [*(f"{name}={json.dumps(value)}" for name, value in parts.items()), "corpus=apart", *sys.argv[1:]]
        status = main(["run", "toolret", "demo", *words, "--run", scratch])
        if status:
            sys.exit(status)
        (learned,) = Path(scratch).glob("stages/compare_learned-*/done.json")
        (agent,) = Path(scratch).glob("stages/try_agent-*/done.json")
        gains = json.loads(learned.read_text())["output"]["gains"]
        settings = json.loads(agent.read_text())["output"]["settings"]
    for one in gains:
        before, after, gained = (one[name] for name in ("before", "after", "difference"))
        print(
            f"{one['part']:10s} {one['category']:10s} {before['count']:5d} queries: nDCG@10 {before['mean']:.3f} -> "
            f"{after['mean']:.3f}, {gained['mean']:+.3f} ({gained['low']:+.3f} to {gained['high']:+.3f})"
        )
    for one in settings:
        print(f"{one['setting']:16s} right tools {one['tools']['mean']:.1%}, right calls {one['calls']['mean']:.1%}")
    (unseen,) = (one for one in gains if one["part"] == "unseen" and one["category"] == "all")
    sys.exit(unseen["difference"]["mean"] < 0.1)
