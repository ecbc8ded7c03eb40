"""close_box by FedAvg on homes that took no part in training, beside FLAME's published 56%.

python tests/bench/bench_flame.py [--config hour] [--run runs/bench-flame]

Runs the job, or goes on with it, and prints success with its interval and the time of each stage. Bars: 56% success,
one hour.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

PUBLISHED = 0.56
HOUR_S = 3600.0


def stages(folder: Path) -> dict[str, dict[str, object]]:
    """The markers of the stages that the finished run went through, by name."""
    names = json.loads((folder / "run.json").read_text())["stages"]
    return {name.rpartition("-")[0]: json.loads((folder / "stages" / name / "done.json").read_text()) for name in names}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="hour")
    parser.add_argument("--run", type=Path, default=Path("runs/bench-flame"))
    options = parser.parse_args()
    command = [sys.executable, "-m", "squadron.core.cli", "run", "flame", options.config, "--run", str(options.run)]
    subprocess.run(command, check=True)
    done = stages(options.run)
    seconds = {name: float(str(marker["seconds"])) for name, marker in done.items()}
    (score,) = [s for s in done["evaluate"]["output"]["scores"] if s["policy"] == "federated"]  # type: ignore[index]
    success = score["successes"] / score["episodes"]
    print("\n".join(f"{name:16} {taken:8.1f} s" for name, taken in seconds.items()))
    print(f"all stages       {sum(seconds.values()):8.1f} s   (bar {HOUR_S:g} s)")
    interval = f"95%: {score['low']:.0%} to {score['high']:.0%}, {score['episodes']} episodes"
    print(f"success on unseen homes {success:.1%} ({interval}); published {PUBLISHED:.0%}; RMSE {score['rmse']:.4f}")
    sys.exit(success < PUBLISHED or sum(seconds.values()) > HOUR_S)
