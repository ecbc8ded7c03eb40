"""`squadron` in a process of its own, whose Ray has workers by fork."""

import sys
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    sys.path[:1] = [str(root / "lib"), str(root)]
    from squadron.core.cli import main
    from tests.forks.client import let_ray_fork

    let_ray_fork()
    sys.exit(main())
