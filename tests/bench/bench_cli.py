"""How long the command line takes to answer. Bars: `squadron --help` 1 s, `squadron plan flame` 3 s and no Ray.

python tests/bench/bench_cli.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

LIB = Path(__file__).resolve().parents[2] / "lib"
BARS = {("--help",): 1.0, ("ls",): 1.0, ("plan", "flame"): 3.0}


def seconds(words: tuple[str, ...], runs: int = 5) -> float:
    """Median wall time of a whole process, after one run that warms the disk cache."""
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        command = [sys.executable, "-m", "squadron.core.cli", *words]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(LIB)})
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


if __name__ == "__main__":
    failed = False
    for words, bar in BARS.items():
        taken = seconds(words)
        failed |= taken > bar
        print(f"squadron {' '.join(words):12}  {taken:.2f} s  (bar {bar:g} s)")
    sys.exit(failed)
