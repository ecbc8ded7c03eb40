"""A training that is cut off at each of its writes, and one that finds each of its files damaged: what came of them.

python tests/train/cuts.py FOLDER

Prints a JSON object: for each disturbance the end of the training that was given again, by `end_of`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.train import TrainSpec, per_row
from squadron.train.batching.batches import RowSource
from squadron.train.checkpoints.checkpoint import Reader
from squadron.train.checkpoints.commits import read_curve
from squadron.train.library_setup import quiet_libraries
from squadron.train.start import join_alone
from squadron.train.worker import Training, train

STEPS = 6
SPEC = TrainSpec.model_validate(
    {"steps": STEPS, "batch_size": 4, "micro_batch_size": 4, "optimizer": {"learning_rate": 0.05}, "evaluate_every": 2,
     "checkpoint": {"every": 2, "keep_last": 2}, "guard": {"explode_factor": 3.0}}
)  # fmt: skip
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "another shape": lambda data: b'{"step": 4}',
    "gone": lambda data: None,
}


class Cut(Exception):
    """The end of a training before its time."""


class CutFolder(Folder):
    """A folder whose user is cut off before, or just after, its n-th write."""

    def __init__(self, url: str, left: list[int], after: bool) -> None:
        super().__init__(url)
        self._left, self._after = left, after

    def __truediv__(self, name: str) -> CutFolder:
        return CutFolder(f"{self.url}/{name}", self._left, self._after)

    def write_bytes(self, name: str, data: bytes) -> None:
        self._counted(lambda: Folder.write_bytes(self, name, data))

    def put(self, name: str, path: str) -> None:
        self._counted(lambda: Folder.put(self, name, path))

    def remove(self, name: str = "") -> None:
        self._counted(lambda: Folder.remove(self, name))

    def _counted(self, write: Callable[[], None]) -> None:
        self._left[0] -= 1
        if self._left[0] == 0 and not self._after:
            raise Cut
        write()
        if self._left[0] == 0:
            raise Cut


def rows() -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    return [{"x": x, "y": x[:1] - 2 * x[1:2]} for x in draw.normal(size=(40, 4)).astype(np.float32)]


def build() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def squared_error(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return ((model(batch["x"]) - batch["y"]) ** 2).mean()


def run(store: Folder, cut_step: int | None = None) -> list[str]:
    """Train to the end, and return what was warned of. A step that is cut has been saved and not been reported."""
    warned: list[str] = []

    def report(step: int, metrics: dict[str, float]) -> None:
        if step == cut_step:
            raise Cut

    data = rows()
    training = Training(build, per_row(squared_error), RowSource(data), data[:8], SPEC, store, "cuts")
    train(training, 0, 1, torch.device("cpu"), report, warned.append)
    return warned


def end_of(store: Folder) -> dict[str, Any]:
    """All that is reported of a training, without what its steps took, and a digest of its weights."""
    with Reader(store, STEPS) as reader:
        weights = b"".join(tensor.numpy().tobytes() for _, tensor in reader.tensors())
    curve = [{name: value for name, value in row.items() if name != "seconds"} for row in read_curve(store, STEPS)]
    return {"curve": curve, "weights": hashlib.sha256(weights).hexdigest()}


def cut_and_resume(store: Path, disturbed: Callable[[Folder], object]) -> dict[str, Any] | None:
    """None if it came to its end undisturbed."""
    try:
        disturbed(Folder(store))
    except Cut:
        run(Folder(store))
        return end_of(Folder(store))
    return None


def damage_and_resume(store: Path, whole: Path, files: list[str], damage: str) -> dict[str, Any]:
    shutil.copytree(whole, store)
    for name in files:
        file = store / name
        content = DAMAGES[damage](file.read_bytes())
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
    try:
        warned = run(Folder(store))
    except InputError as error:
        return {"refused": str(error)}
    return {**end_of(Folder(store)), "warned": warned}


def main(folder: Path) -> None:
    quiet_libraries()
    join_alone()
    whole = folder / "whole"
    run(Folder(whole))
    found: dict[str, Any] = {"undisturbed": end_of(Folder(whole))}
    for step in range(1, STEPS + 1):
        store = folder / f"reported-{step}"
        found[f"cut before step {step} was reported"] = cut_and_resume(store, lambda place, at=step: run(place, at))
    for after in (False, True):
        for number in range(1, 99):
            store = folder / f"write-{number}-{after}"
            cut = cut_and_resume(store, lambda place, n=number, late=after: run(CutFolder(place.url, [n], late)))
            if cut is None:
                found[f"writes, {after}"] = number - 1
                break
            found[f"cut {'after' if after else 'before'} write {number}"] = cut
    names = [path.relative_to(whole).as_posix() for path in sorted(whole.glob("checkpoints/step-000006/*"))]
    for name in names:
        for damage in DAMAGES:
            store = folder / f"damaged-{Path(name).name}-{damage}"
            found[f"{Path(name).name} {damage}"] = damage_and_resume(store, whole, [name], damage)
    (part,) = (name for name in names if name.endswith("safetensors"))
    both = [part, part.replace("000006", "000004")]
    found["all damaged"] = damage_and_resume(folder / "all-damaged", whole, both, "flipped")
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
