"""Cards: how many, their driver, their memory, and whether they are well."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from squadron.cluster.doctor.finding import Finding, failed, ok, warning

_FIELDS = {
    "index": "index",
    "name": "name",
    "driver": "driver_version",
    "memory_mb": "memory.total",
    "used_mb": "memory.used",
    "uncorrected": "ecc.errors.uncorrected.volatile.total",
    "remap_pending": "remapped_rows.pending",
    "remap_failed": "remapped_rows.failure",
    "temperature": "temperature.gpu",
}
"""Facts and their names in nvidia-smi. A card that does not count something says so in brackets: [N/A]."""
_TIMEOUT_S = 10
_HOT = 88


@dataclass(frozen=True)
class Gpu:
    """One card, as nvidia-smi tells it. What it does not count is 0."""

    index: int
    name: str
    driver: str
    memory_mb: int
    used_mb: int
    uncorrected: int  # errors of memory since the last reset
    remap_pending: int
    remap_failed: int
    temperature: int


@dataclass(frozen=True)
class Gpus:
    """The cards of a machine; and why they could not be asked, if there are any."""

    cards: tuple[Gpu, ...] = ()
    error: str = ""
    seen_by_torch: int | None = None  # None: it was not asked


def find_gpus() -> Gpus:
    """Of this machine. torch is asked only where there are cards: its import takes seconds."""
    if shutil.which("nvidia-smi") is None:
        there = Path("/dev/nvidia0").exists()
        return Gpus(error="there is a card, but no nvidia-smi to ask it" if there else "")
    query = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS.values())}", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return Gpus(error=f"nvidia-smi did not answer within {_TIMEOUT_S} s")
    if asked.returncode:
        told = (asked.stdout + asked.stderr).strip().splitlines()
        return Gpus(error=f"nvidia-smi failed: {told[0][:200] if told else asked.returncode}")
    cards = parse_gpus(asked.stdout)
    return Gpus(cards, seen_by_torch=_seen_by_torch() if cards else None)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Cards of nvidia-smi's lines with the fields that are asked for."""
    lines = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    return tuple(
        Gpu(
            index=_count(line[0]), name=line[1], driver=line[2], memory_mb=_count(line[3]), used_mb=_count(line[4]),
            uncorrected=_count(line[5]), remap_pending=_count(line[6]), remap_failed=_count(line[7]),
            temperature=_count(line[8]),
        )
        for line in lines
        if len(line) == len(_FIELDS)
    )  # fmt: skip


def check_gpus(gpus: Gpus, counted: float | None = None) -> Finding:
    """Whether the cards are well, and Ray and torch see all of them. None is fine. `counted` is how many Ray has."""
    if gpus.error:
        return failed("GPUs", gpus.error, "`dmesg | grep -i -e nvrm -e xid` says why; install or reload the driver")
    if not gpus.cards:
        if counted:
            return failed("GPUs", f"none, but Ray counts on {counted:g}", "start the node without --num-gpus")
        return ok("GPUs", "none")
    told = f"{_describe(gpus.cards)}, driver {gpus.cards[0].driver}"
    for card in gpus.cards:
        if card.remap_failed:
            fix = f"take it out of use (CUDA_VISIBLE_DEVICES without {card.index}) and have it replaced"
            return failed("GPUs", f"card {card.index} has rows of memory that it cannot replace; {told}", fix)
        if card.uncorrected or card.remap_pending:
            text = f"card {card.index} has {card.uncorrected} uncorrected errors of its memory; {told}"
            return failed("GPUs", text, f"end what runs on it, then `nvidia-smi -r -i {card.index}`")
    if gpus.seen_by_torch is not None and gpus.seen_by_torch < len(gpus.cards):
        text = f"torch sees {gpus.seen_by_torch} of them: {told}"
        fix = "unset CUDA_VISIBLE_DEVICES, or `pip install -c constraints/gpu.txt torch` for a build with CUDA"
        return failed("GPUs", text, fix)
    if counted is not None and counted < len(gpus.cards):
        return warning(
            "GPUs", f"Ray counts on {counted:g} of them: {told}", f"`ray start --num-gpus={len(gpus.cards)}`"
        )
    hot = [str(card.index) for card in gpus.cards if card.temperature >= _HOT]
    if hot:
        return warning(
            "GPUs", f"cards {', '.join(hot)} are at {_HOT} °C or more; {told}", "`nvidia-smi -q -d PERFORMANCE`"
        )
    return ok("GPUs", told)


def _describe(cards: Sequence[Gpu]) -> str:
    kinds = sorted({(card.name, card.memory_mb) for card in cards})
    counts = [sum((card.name, card.memory_mb) == kind for card in cards) for kind in kinds]
    return ", ".join(
        f"{count} × {name} of {memory / 1024:.0f} GiB" for (name, memory), count in zip(kinds, counts, strict=True)
    )


def _count(cell: str) -> int:
    """A number; 0 for what a card does not count; 1 for what it affirms."""
    if cell.lower() == "yes":
        return 1
    try:
        return int(float(cell))
    except ValueError:
        return 0


def _seen_by_torch() -> int | None:
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":  # so Ray hides cards from tasks that ask for none
        return None
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.device_count()
