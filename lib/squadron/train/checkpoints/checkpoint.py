"""Checkpoints that any number of workers under any ZeRO stage can go on from, without a pickle.

    checkpoints/step-000200/
        rank-00-of-02.safetensors    what worker 0 owns: stretches of weights, of optimiser states, of their average
        rank-01-of-02.safetensors
        curve.jsonl                  the metrics of every step from the first to this one
        complete.json                written last, with the SHA-256 of the others: a folder without it is no checkpoint

DeepSpeed's own universal checkpoints do this too; they are not used because loading them unpickles, gives every group
of weights the weight decay of the first (`load_hp_checkpoint_state_from_checkpoint_dir` in DeepSpeed 0.19), takes a
conversion between saving and loading, and knows no stage 0. Frozen weights are not saved: they are those of the base
model, whose identity is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.train.checkpoints import shards as zero
from squadron.train.checkpoints.commits import (
    Complete,
    best_step,
    check_digest,
    complete_steps,
    damaged,
    name_of,
    pass_over,
    read_complete,
)

if TYPE_CHECKING:
    import torch

WEIGHT, AVERAGE = "weight", "average"
_KINDS = (WEIGHT, *zero.MOMENTS, AVERAGE)


def save_shards(
    engine: Any, owned: list[zero.Shard], averages: Mapping[str, torch.Tensor], folder: Folder, rank: int, workers: int
) -> tuple[str, str]:
    """Write what this worker owns, and return the file's name and SHA-256. At stage 0, where all own all, only rank 0
    writes."""
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    starts: dict[str, int] = {}
    optimizer = zero.base_optimizer(engine)
    alone = engine.zero_optimization_stage() == 0
    for shard in owned if rank == 0 or not alone else ():
        with zero.resident(engine, shard.group):
            values = {WEIGHT: shard.weight, **{key: shard.moment(optimizer, key) for key in zero.MOMENTS}}
            if averages:
                values[AVERAGE] = averages[shard.name]
            tensors |= {f"{shard.name}|{kind}": value.detach().cpu().clone() for kind, value in values.items()}
        starts[shard.name] = shard.start
    name = f"rank-{rank:02d}-of-{workers:02d}.safetensors"
    with tempfile.TemporaryDirectory(dir=_scratch(folder)) as scratch:
        path = os.path.join(scratch, name)
        save_file(tensors, path, metadata={"starts": json.dumps(starts)})
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        folder.put(name, path)
    return name, digest


def _scratch(folder: Folder) -> str | None:
    """Where a file is written before it is moved into place: on the same disk, if the folder is local."""
    if not folder.path:
        return None
    os.makedirs(folder.path, exist_ok=True)
    return folder.path


def prune(store: Folder, keep_last: int, keep_best: bool) -> None:
    """Remove all complete checkpoints but the last ones and, if asked for, the one of the lowest held-out loss."""
    steps = complete_steps(store)
    kept = set(steps[-keep_last:])
    if keep_best and (best := best_step(store)) is not None:
        kept.add(best)
    for step in steps:
        if step not in kept:
            pass_over(store, step)  # first: what is removed half way is no checkpoint
            (store / "checkpoints").remove(name_of(step))


class Reader:
    """A complete checkpoint, read by name and stretch. Raises InputError if it is damaged: every part is read once to
    compare it with its SHA-256, unless `verified` says that this was done."""

    def __init__(self, store: Folder, step: int, *, verified: bool = False) -> None:
        self.folder = store / "checkpoints" / name_of(step)
        self.about = read_complete(store, step)
        self._verified = verified
        self._files: list[Any] = []
        self._stretches: dict[str, list[tuple[int, int, int]]] = {}
        self._local = contextlib.ExitStack()

    def __enter__(self) -> Reader:
        from safetensors import SafetensorError, safe_open

        scratch = "" if self.folder.path else self._local.enter_context(tempfile.TemporaryDirectory())
        for number, (name, digest) in enumerate(self.about.files.items()):
            try:
                path = self.folder.fetch(name, scratch)
                if not self._verified:
                    with open(path, "rb") as stream:
                        check_digest(self.folder, name, stream, digest)
                file = self._local.enter_context(safe_open(path, framework="pt"))
            except (FileNotFoundError, SafetensorError) as error:
                raise damaged(self.folder, name, str(error)) from None
            starts = json.loads(file.metadata()["starts"])
            for key in file.keys():  # noqa: SIM118 - not a mapping
                weight = key.rpartition("|")[0]
                (numel,) = file.get_slice(key).get_shape()
                self._stretches.setdefault(key, []).append((starts[weight], numel, number))
            self._files.append(file)
        return self

    def __exit__(self, *error: object) -> None:
        self._local.close()

    def has(self, kind: str) -> bool:
        return any(key.endswith(f"|{kind}") for key in self._stretches)

    def read(self, name: str, kind: str, start: int, numel: int) -> torch.Tensor:
        """`[start : start + numel]` of the flattened tensor, float32."""
        import torch

        values, known = torch.empty(numel), 0
        for first, length, number in self._stretches.get(f"{name}|{kind}", []):
            low, high = max(start, first), min(start + numel, first + length)
            if low < high:
                stretch = self._files[number].get_slice(f"{name}|{kind}")[low - first : high - first]
                values[low - start : high - start] = stretch
                known += high - low
        if known != numel:
            raise damaged(self.folder, name, f"holds {known} of {numel} values of {kind}")
        return values

    def tensors(self, kind: str = WEIGHT) -> Iterator[tuple[str, torch.Tensor]]:
        """Every trained weight (or its moving average) whole, float32, one at a time."""
        for name, shape in self.about.shapes.items():
            yield name, self.read(name, kind, 0, math.prod(shape)).view(shape)


def load_shards(engine: Any, owned: list[zero.Shard], averages: Mapping[str, torch.Tensor], reader: Reader) -> None:
    """Put a checkpoint's weights, optimiser states and averages where this worker keeps them."""
    zero.make_states(engine, owned, reader.about.step)
    optimizer = zero.base_optimizer(engine)
    for shard in owned:
        with zero.resident(engine, shard.group):
            shard.weight.copy_(reader.read(shard.name, WEIGHT, shard.start, shard.numel))
            for key in zero.MOMENTS:
                shard.moment(optimizer, key).copy_(reader.read(shard.name, key, shard.start, shard.numel))
        if averages:
            averages[shard.name].copy_(reader.read(shard.name, AVERAGE, shard.start, shard.numel))
    zero.publish(engine)


def check_same(complete: Complete, shapes: Mapping[str, tuple[int, ...]], identity: Mapping[str, Any]) -> None:
    """Raise InputError if a checkpoint is of another model or of another run than this one."""
    fix = "give this run a folder of its own with --run, or delete the checkpoints to start over"
    if changed := sorted(key for key in identity if complete.identity.get(key) != identity[key]):
        what = f"this checkpoint belongs to another run: it differs in {', '.join(changed[:4])}"
        raise InputError(what, where=name_of(complete.step), fix=fix)
    saved, asked = {name: tuple(shape) for name, shape in complete.shapes.items()}, dict(shapes)
    if saved == asked:
        return
    strange = sorted(name for name in saved.keys() | asked.keys() if saved.get(name) != asked.get(name))
    what = (
        f"this checkpoint is of another model: {strange[0]} is {saved.get(strange[0], 'absent')} in it and "
        f"{asked.get(strange[0], 'absent')} here" + (f", and {len(strange) - 1} more differ" if strange[1:] else "")
    )
    raise InputError(what, where=name_of(complete.step), fix=fix)
