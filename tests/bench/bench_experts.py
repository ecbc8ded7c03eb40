"""How often each scripted expert succeeds on random environments with every factor of variation on. Bar: 95%.

python tests/bench/bench_experts.py [--environments 50]
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from squadron.sim.manipulation.tasks import TASKS

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=int, default=50)
    environments = str(parser.parse_args().environments)
    check = [sys.executable, "-m", "squadron.sim.manipulation.check", "--environments", environments]
    sys.exit(max(subprocess.run([*check, "--task", task]).returncode for task in TASKS))
