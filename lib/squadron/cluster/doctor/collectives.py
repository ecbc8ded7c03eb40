"""Whether processes on several nodes can train together: an all-reduce by gloo, and by NCCL where there are cards."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from squadron.cluster.doctor.finding import Finding, failed, ok, warning

Backend = Literal["gloo", "nccl"]
_SIZES = {"gloo": 2**22, "nccl": 2**26}  # numbers of 4 bytes each in the large all-reduce
_SMALL_REPEATS, _LARGE_REPEATS = 20, 3
_SLOW_MB_S = {"gloo": 100.0, "nccl": 1000.0}  # a network of 1 Gb/s carries about 110
_FIXES = {
    "gloo": "let nodes reach each other on all TCP ports; set GLOO_SOCKET_IFNAME to the interface between them",
    "nccl": "run again with NCCL_DEBUG=INFO; set NCCL_SOCKET_IFNAME to the interface between the nodes, and "
    "NCCL_IB_HCA to its InfiniBand cards, or NCCL_IB_DISABLE=1 where there are none",
}


@dataclass(frozen=True)
class Rank:
    """What one process of the group has measured. The speed is that of the wires: what each sends, by the time."""

    node: str
    error: str = ""
    latency_s: float = 0.0  # of an all-reduce of one number
    mb_s: float = 0.0


def all_reduce(backend: Backend, store: str, rank: int, world: int, node: str, timeout_s: float) -> Rank:
    """Join the group whose store is at `host:port`, served by rank 0, and measure all-reduces of one number and of
    many. Blocks until all have come, or the time is over."""
    try:
        import torch

        _use_interface(node)
        device = torch.device("cuda", 0) if backend == "nccl" else torch.device("cpu")
        if backend == "nccl":
            torch.cuda.set_device(device)
        torch.distributed.init_process_group(
            backend, init_method=f"tcp://{store}", rank=rank, world_size=world, timeout=timedelta(seconds=timeout_s)
        )
        try:
            return _measure(node, device, world)
        finally:
            torch.distributed.destroy_process_group()
    except Exception as error:
        return Rank(node, error=f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}")


def check_group(backend: Backend, ranks: Sequence[Rank], absent: Sequence[str]) -> Finding:
    """Whether all came, and how fast they are together. `absent` are nodes whose process did not answer in time."""
    name, fix = f"{backend} all-reduce", _FIXES[backend]
    wrong = [rank for rank in ranks if rank.error]
    if absent:
        return failed(name, f"no answer in time from {', '.join(sorted(set(absent)))}", fix)
    if wrong:
        where = ", ".join(sorted({rank.node for rank in wrong}))
        return failed(name, f"{where}: {wrong[0].error}", fix)
    latency, speed = max(rank.latency_s for rank in ranks), min(rank.mb_s for rank in ranks)
    nodes = len({rank.node for rank in ranks})
    text = f"{len(ranks)} processes on {nodes} nodes, {1000 * latency:.2f} ms for a number"
    if len(ranks) == 1:
        return ok(name, f"{text}; there is no other to talk to")
    text += f", {speed:,.0f} MiB/s for {4 * _SIZES[backend] / 2**20:.0f} MiB"
    if speed < _SLOW_MB_S[backend]:
        return warning(name, f"slow: {text}", fix)
    return ok(name, text)


def _measure(node: str, device: Any, world: int) -> Rank:
    import torch

    def timed(tensor: Any) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        torch.distributed.all_reduce(tensor)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    one = torch.ones(1, device=device)
    many = torch.ones(_SIZES["nccl" if device.type == "cuda" else "gloo"], device=device)
    timed(one)  # connections come about
    if one.item() != world:
        return Rank(node, error=f"the sum of {world} ones came out as {one.item():g}")
    latency = statistics.median(timed(torch.ones(1, device=device)) for _ in range(_SMALL_REPEATS))
    seconds = min(timed(many) for _ in range(_LARGE_REPEATS))
    moved = 2 * (world - 1) / world * many.numel() * 4  # bytes that each process sends in a ring
    return Rank(node, latency_s=latency, mb_s=moved / 2**20 / seconds)


def _use_interface(address: str) -> None:
    """Let gloo and NCCL talk over the interface that Ray knows this node by, unless the user has chosen one."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
