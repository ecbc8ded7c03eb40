"""Whether a run leaves what sweeps compare."""

from __future__ import annotations

import json
import math
from pathlib import Path

from squadron.core import catalog


def missing_metrics(run: Path) -> set[str]:
    """Metrics that the run's job declares, and that none of its stages has measured or logged as a finite number."""
    job = json.loads((run / "run.json").read_text())["job"]
    rows = [json.loads(path.read_text()) for path in run.glob("stages/*/measures.json")]
    for path in run.glob("stages/*/metrics.jsonl"):
        rows += map(json.loads, path.read_text().splitlines())
    found = {key for row in rows for key, value in row.items() if value is not None and math.isfinite(value)}
    metrics = set(catalog.load_job(job).metrics)
    assert metrics
    return metrics - found
