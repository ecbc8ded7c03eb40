"""From a fresh clone to a finished demo, as a newcomer would see it. Bars: 8 minutes in all, the job itself 4.

python tests/bench/bench_demo.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHOLE_S, JOB_S = 480.0, 240.0


def seconds(*command: str, cwd: Path) -> float:
    """Wall time of a command that knows nothing of this checkout's environment."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    started = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=kept, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        clone = Path(place) / "squadron"
        fetched = seconds("git", "clone", "--quiet", str(ROOT), str(clone), cwd=ROOT)
        installed = seconds("make", "--quiet", ".venv/.ready", cwd=clone)
        job = seconds("make", "--quiet", "demo", cwd=clone)
        assert (clone / "runs" / "flame-demo" / "report.html").exists()
    whole = fetched + installed + job
    print(f"clone {fetched:.1f} s, install {installed:.1f} s, job {job:.1f} s (bar {JOB_S:g} s)")
    print(f"whole {whole:.1f} s (bar {WHOLE_S:g} s)")
    sys.exit(whole > WHOLE_S or job > JOB_S)
