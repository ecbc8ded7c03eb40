"""ToolRet: BM25, MiniLM and both on real sets against the known answers, and on made-up tools.

    python tests/bench/bench_toolret.py [sets] [world] [bfcl …]

All parts and all sets, unless some are named. `sets` needs the data folder; a part without its data says so and is
skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from squadron.methods.toolret.records import Comparison

ROOT = Path(__file__).resolve().parents[2]
RUN, DATA = ROOT / "runs" / "bench" / "toolret", ROOT.parent / "shared" / "data" / "toolret"
SETS = {
    "metatool": ("metatool_tools.json", "metatool_queries.csv.gz", "metatool_multi_tool_queries.json"),
    "sealtools": ("sealtools_tool.jsonl.gz", "sealtools_test_in_domain.jsonl.gz"),
    **{name: (f"{name}_tools.jsonl.gz", f"{name}_queries.jsonl.gz")
       for name in ("bfcl", "apibench_torch", "apibench_tensorflow", "restbench_tmdb", "toolalpaca_simulated")},
}  # fmt: skip
KNOWN = {"bfcl": (60.7, 55.4), "apibench_torch": (24.8, 20.4), "restbench_tmdb": (45.9, 41.1),
         "toolalpaca_simulated": (86.3, 90.8)}  # fmt: skip
"""nDCG@10 of BM25 and MiniLM, computed elsewhere: no stemming, English stop words left out of documents."""


def sets() -> bool:
    """Every set by itself. Bars: BM25 and MiniLM within 0.1 of the known answers, the hybrid no worse than either."""
    if not DATA.exists():
        print(f"sets: skipped, {DATA} is not there")
        return True
    named = {name: files for name, files in SETS.items() if name in sys.argv} or SETS
    chosen = [
        {"name": name, "tools": {"path": str(DATA / tools)}, "queries": [{"path": str(DATA / one)} for one in queries]}
        for name, (tools, *queries) in named.items()
    ]
    words = ["corpus=apart", "instructions=[false]", "latency.queries=0"]
    found = {one.method: one for one in run("sets", f"sets={json.dumps(chosen)}", *words).methods}
    met = True
    for name in named:
        shown = {method: one.by_category[name] for method, one in found.items()}
        cells = [f"{method} {100 * n.mean:.2f} ({n.interval('.3f')}), C {100 * c.mean:.2f} ({c.interval('.3f')})"
                 for method, (n, c) in shown.items()]  # fmt: skip
        print(f"{name}: nDCG@10 and completeness@10: {'; '.join(cells)}; known {KNOWN.get(name)}")
        bm25, minilm, hybrid = (100 * shown[method][0].mean for method in ("BM25", "MiniLM", "hybrid"))
        met &= hybrid >= max(bm25, minilm)
        if name in KNOWN:
            met &= abs(bm25 - KNOWN[name][0]) <= 0.1 and abs(minilm - KNOWN[name][1]) <= 0.1
    return met


def world() -> bool:
    """The demo's made-up tools, with instructions and without."""
    for one in run("world").methods:
        told = "with" if one.instructed else "without"
        print(f"{one.method}, {told}: nDCG@10 {one.ndcg.text('.1%')}, completeness@10 {one.completeness.text('.1%')}")
    return True


def run(part: str, *words: str) -> Comparison:
    """The demo with these words, and what it compared."""
    command = [sys.executable, "-m", "squadron.core.cli", "run", "toolret", "demo", *words, "--run", str(RUN / part)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    name = next(
        name for name in json.loads((RUN / part / "run.json").read_text())["stages"] if name.startswith("compare")
    )
    marker = json.loads((RUN / part / "stages" / name / "done.json").read_text())
    return Comparison.model_validate(marker["output"])


if __name__ == "__main__":
    checks: dict[str, Any] = {one.__name__: one for one in (sets, world)}
    results = [checks[name]() for name in [word for word in sys.argv[1:] if word in checks] or checks]
    sys.exit(not all(results))
