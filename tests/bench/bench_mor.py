"""MoR: Hit@1 by kind of question, by text, by structure, by both, and reranked.

    python tests/bench/bench_mor.py [attack] [generated] [SEED …]

Both parts, and seeds 0, 1 and 2 of the made-up graphs, unless some are named. `attack` needs the data folder; without
it the part says so and is skipped.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from squadron.methods.mor.comparison import Comparison, Measured

ROOT = Path(__file__).resolve().parents[2]
RUN, DATA = ROOT / "runs" / "bench" / "mor", ROOT.parent / "shared" / "data" / "mor"
KNOWN = {"text": (0.162, None), "mitigation": (0.140, 0.557), "software of a group": (0.170, 0.547),
         "group with software": (0.030, 0.660)}  # fmt: skip
"""Hit@1 on ATT&CK by text, and by gold plans with a crude merge, computed elsewhere on all questions of a kind."""
SHARE, POINTS = 0.9, 0.05
"""Of the gold plans' gain that a trained planner is to reach, and what the reranker is to add."""


def attack() -> bool:
    """MITRE ATT&CK. Bars: a trained planner reaches 90% of the gold plans' gain, the reranker adds 5 points."""
    if not DATA.exists():
        print(f"attack: skipped, {DATA} is not there")
        return True
    files = {"nodes": DATA / "attack_enterprise_nodes.jsonl.gz", "edges": named_edges(),
             "questions": DATA / "attack_questions.jsonl.gz"}  # fmt: skip
    found = run("attack", *(f"graph.{name}={path}" for name, path in files.items())).methods
    for kind, (text, both) in KNOWN.items():
        print(f"attack: {kind}: known {text} by text, {both} by gold plans")
    show("attack", found)
    words_alone, planned, given = (
        hit(found, name) for name in ("text: words", "both, not reranked: extractive", "both, not reranked: given")
    )
    reranked = hit(found, "MoR: extractive")
    share, gained = (planned - words_alone) / (given - words_alone), reranked - planned
    print(f"attack: {share:.0%} of the gold plans' gain (bar {SHARE:.0%}); reranking {gained:+.3f} (bar {POINTS:+.3f})")
    return share >= SHARE and gained >= POINTS


def named_edges() -> Path:
    """The edges, which the data has as lists, as records."""
    RUN.mkdir(parents=True, exist_ok=True)
    path = RUN / "edges.jsonl"
    with gzip.open(DATA / "attack_enterprise_edges.jsonl.gz", "rt", encoding="utf-8") as lines:
        edges = [dict(zip(("source", "relation", "target"), json.loads(line), strict=True)) for line in lines]
    path.write_text("".join(f"{json.dumps(edge)}\n" for edge in edges))
    return path


def generated() -> bool:
    """Made-up graphs. Bar: better than text alone and structure alone, the intervals apart."""
    met = True
    for seed in [word for word in sys.argv[1:] if word.isdecimal()] or ["0", "1", "2"]:
        found = [one for one in run(f"generated-{seed}", f"world.seed={seed}").methods]
        show(f"seed {seed}", found)
        whole = {one.method: one.hit1 for one in found if not one.kind}
        best = next(value for name, value in whole.items() if name.startswith("MoR: extractive"))
        others = [value for name, value in whole.items() if name.startswith(("text:", "structure: extractive"))]
        met &= all(best.low > other.high for other in others)
    print("generated: better than text and structure, intervals apart:", "met" if met else "not met")
    return met


def hit(found: tuple[Measured, ...], method: str) -> float:
    """Hit@1 on all questions of the method whose name begins so."""
    return next(one.hit1.mean for one in found if one.method.startswith(method) and not one.kind)


def show(part: str, found: Any) -> None:
    """A line for each method and kind."""
    for one in found:
        print(
            f"{part}: {one.method}, {one.kind or 'all kinds'}: Hit@1 {one.hit1.text('.3f')}, {one.hit1.count} questions"
        )


def run(part: str, *words: str) -> Comparison:
    """The demo with these words, and what it compared."""
    command = [sys.executable, "-m", "squadron.core.cli", "run", "mor", "demo", *words, "--run", str(RUN / part)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    stages = json.loads((RUN / part / "run.json").read_text())["stages"]
    name = next(name for name in stages if name.startswith("compare"))
    return Comparison.model_validate(json.loads((RUN / part / "stages" / name / "done.json").read_text())["output"])


if __name__ == "__main__":
    checks: dict[str, Any] = {one.__name__: one for one in (attack, generated)}
    results = [checks[name]() for name in [word for word in sys.argv[1:] if word in checks] or checks]
    sys.exit(not all(results))
