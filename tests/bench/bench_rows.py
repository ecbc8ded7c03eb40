"""Trivial rows a second through the row engine, next to Ray Data's `map_batches` alone. Bar: 0.8 of its rate.

    python tests/bench/bench_rows.py            # 1,000,000 rows on two cores, three alternating runs of each
    python tests/bench/bench_rows.py 100000 --repeats 1

Both apply the same function to the same rows in memory, in batches of the same size, and end with the answers as a list
in memory. The engine also writes every answer and every attempt to disk, so that a killed run resumes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from squadron.core.cluster import connect
from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.ray_data import quiet_ray_data
from squadron.core.rows import map_rows
from squadron.core.run import Run, Stage

BAR, CORES = 0.8, 2


def square(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "square": row["n"] ** 2}


def square_batch(batch: dict[str, Any]) -> dict[str, list[Any]]:
    """The same on a batch, as Ray Data hands it over."""
    columns = (values.tolist() for values in batch.values())
    answers = [square(dict(zip(batch, values, strict=True))) for values in zip(*columns, strict=True)]
    return {name: [answer[name] for answer in answers] for name in answers[0]}


def engine(rows: list[dict[str, Any]], batch_size: int) -> tuple[list[dict[str, Any]], float, int]:
    """Answers, seconds, and files written by the row engine."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Run("bench", Config(), Folder(scratch), Profile(name="auto"), track=())
        stage = Stage(run, "square", "", {}, run.folder / "stages" / "square-0")
        stage.begin()
        started = time.perf_counter()
        answers = map_rows(stage, rows, square, batch_size=batch_size)
        seconds = time.perf_counter() - started
        files = sum(path.is_file() for path in Path(scratch, "stages/square-0/rows").rglob("*"))
    return answers, seconds, files


def ray_data(rows: list[dict[str, Any]], batch_size: int) -> tuple[list[dict[str, Any]], float, int]:
    """The same by Ray Data alone."""
    import ray.data

    started = time.perf_counter()
    dataset = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // batch_size))
    tasks = ray.data.TaskPoolStrategy(CORES)
    answers = dataset.map_batches(square_batch, batch_size=batch_size, compute=tasks).take_all()
    return answers, time.perf_counter() - started, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8192)
    options = parser.parse_args()
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own default lets workers starve on a busy machine
    connect(cpus=CORES)
    quiet_ray_data()
    rows = [{"id": str(number), "n": number} for number in range(options.count)]
    sides = {"row engine": engine, "Ray Data alone": ray_data}
    for side in sides.values():  # workers start and import
        side(rows[: 4 * CORES], CORES)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    written = dict.fromkeys(sides, 0)
    for _ in range(options.repeats):
        for name, side in sides.items():
            answers, seconds, written[name] = side(rows, options.batch_size)
            assert len(answers) == options.count and all(a["square"] == int(a["id"]) ** 2 for a in answers)
            rates[name].append(options.count / seconds)
    print(
        f"\n{options.count:,} rows in batches of {options.batch_size:,} on {CORES} cores, median of {options.repeats}"
    )
    for name, values in rates.items():
        runs = " ".join(f"{value:,.0f}" for value in values)
        median, best = statistics.median(values), max(values)
        print(f"{name:16}{median:12,.0f} rows/s, best {best:10,.0f} {written[name]:8,} files   runs {runs}")
    share = statistics.median(rates["row engine"]) / statistics.median(rates["Ray Data alone"])
    print(f"{share:.2f} of Ray Data alone; bar {BAR}: {'met' if share >= BAR else 'missed'}")
    sys.exit(share < BAR)


if __name__ == "__main__":
    main()
