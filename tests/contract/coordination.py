"""The contract of the job coordination, with a fleet of one's own: robots that cross a floor of five by five cells."""

from pathlib import Path
from typing import Any

from tests.contract.record import Contract, Refused, contents, output, stages


def solved_and_learned(folder: Path) -> Any:
    """The table of what was solved, the problems, and the networks that have learned from them."""
    (stage,) = stages(folder, "label_problems")
    files = [f"stages/{pattern}" for pattern in ("label_problems-*/*.arrow", "train_planners-*/*/model/*.safetensors")]
    return output(stage), *(contents(pattern)(folder) for pattern in files)


def routes(said: str, *lines: str) -> Refused:
    """A file of these routes."""
    return Refused(said, ["fleet={routes: FILES/r.jsonl}"], {"r.jsonl": "".join(f"{line}\n" for line in lines)})


CONTRACT = Contract(
    words=["fleet.map=FILES/map", "fleet.starts=FILES/starts", "fleet.tasks=FILES/tasks", "--workers", "1"],
    files={
        "map": "type octile\nheight 5\nwidth 5\nmap\n" + ".....\n" * 5,
        "starts": "3\n0\n4\n10\n",
        "tasks": "3\n24\n20\n14\n",
    },
    panels=[
        "Ratio to the best known plan", "Methods by size", "Ratios of single problems", "Labelled problems", "Time",
        "all at once and by plan", "Loss of graph VAE", "Your fleet", "data:image/webp",
    ],
    half_way="stages/compare-*/rows/*.jsonl",
    killed_in="compare",
    same=solved_and_learned,
    kept="stages/*/rows/*.jsonl",  # what was solved stays solved
    refused=[
        Refused("did you mean robots", ["problems.robot=[2, 3]"]),
        Refused("from 2 on", ["problems.robots=[1, 3]"]),
        Refused("greater than or equal to 1", ["limits.density=0"]),
        Refused("sizes of 2 or more", ["evaluation.robots=[1]"]),
        Refused("average_completion", ["costs=[shortest]"]),
        Refused("give routes, or map, starts and tasks", ["fleet={map: x}"]),
        Refused("planners plan a fleet of your own", ["planners=FILES"]),
        Refused("missing.jsonl", ["fleet={routes: missing.jsonl}"]),
        Refused("no multiple of heads", ["model.heads=3"]),
        routes("overlap at their starts", '{"route": [[0, 0], [5, 0]]}', '{"route": [[0, 0.5], [5, 1]]}'),
        routes("holds a list, not a list of at least one item", '{"route": []}'),
        routes("r.jsonl:2", '{"route": [[0, 0], [5, 0]]}', '{"path": [[1, 1]]}'),
        routes("r.jsonl:1", '{"route": [[0, 0], [5'),
        routes("no robot in it"),
    ],
    spared="stages/label_problems-*",
    no_effect=["labels.timeout_s=99", "evaluation.timeout_s=99", "training.checkpoint.every=3"],
    late={
        "training.optimizer.learning_rate=0.01": "train_planners",
        "sampling.samples=7": "compare",
        "fleet.seed=3": "read_fleet",
    },
)  # fmt: skip
