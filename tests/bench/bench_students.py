"""What CrowdSelect's choice is worth in the small world: students of equal size, three seeds, against a random choice.

Bar: the difference's 95% interval over instructions is above zero. Takes a quarter of an hour on two cores.

python tests/bench/bench_students.py [world.seed=2 …]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from squadron.core.cli import main

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        status = main(["run", "crowdselect", "full", *sys.argv[1:], "--run", scratch])
        if status:
            sys.exit(status)
        (done,) = Path(scratch).glob("stages/compare_students-*/done.json")
        output = json.loads(done.read_text())["output"]
    for arm, found in output["arms"].items():
        print(f"{arm:14s} mean score by seed: {', '.join(f'{mean:.3f}' for mean in found['by_seed'])}")
    found = output["difference"]
    print(f"CrowdSelect - random {found['mean']:+.3f}, 95% {found['low']:+.3f} to {found['high']:+.3f}")
    sys.exit(found["low"] <= 0)
