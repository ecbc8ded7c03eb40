"""A graphics card that is not there, to find tensors that were left off it.

    with card() as send:
        model, batch = send(model), send(batch)
        loss = objective(model, batch)

What is sent says that it is on `card:0`. Each operation is tried first on torch's fake tensors, which refuse mixed
devices as a card does and say where the result is; the numbers are then computed on the CPU. So what depends on values,
such as the next token, runs as well, and the results can be compared with those of the CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class _Backend(_DummyBackendModule):
    """What torch asks of a kind of device."""

    device = contextlib.nullcontext

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        torch.set_rng_state(state)


# Of a CUDA device torch built for CPUs alone can make none of the guards that many operations enter.
_setup_privateuseone_for_python_backend("card", _Backend())
CARD, HOST = torch.device("card:0"), torch.device("cpu")
_INDEXED = {torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_}
"""What takes indices on the CPU as well; fake tensors take any."""


class OnCard(torch.Tensor):
    """A tensor that says it is on the card; its numbers are in `host`."""

    host: torch.Tensor

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> OnCard:
        like = {"strides": host.stride(), "storage_offset": host.storage_offset(), "dtype": host.dtype}
        with torch.inference_mode(False):  # those of inference cannot be wrapped
            made: OnCard = torch.Tensor._make_wrapper_subclass(cls, host.size(), device=CARD, **like)  # type: ignore[attr-defined]
        made.host = host
        return made

    def tolist(self) -> Any:
        """torch refuses it to classes of tensors."""
        return self.host.tolist()

    def new_tensor(self, data: Any, **options: Any) -> torch.Tensor:
        return OnCard(torch.tensor(data, dtype=options.get("dtype", self.dtype)))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on the card, outside of `card()`")


class _Card(TorchDispatchMode):
    """Runs every operation twice: on fake tensors for its devices, on the CPU for its numbers."""

    def __init__(self, fakes: FakeTensorMode) -> None:
        super().__init__()
        self._fakes = fakes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with _disable_current_modes():
            where = self._devices(func, args, kwargs)
            result = func(*tree_map(_numbers, args), **tree_map(_numbers, kwargs))
            given = tree_leaves((args, kwargs))
            known = {id(one.host): one for one in given if isinstance(one, OnCard)}  # what was changed in place
            if isinstance(result, torch.Tensor):
                return _placed(result, where[0], known)
            leaves, places = tree_leaves(result), iter(where)
            if not any(isinstance(leaf, torch.Tensor) for leaf in leaves):
                return result
            return tree_map(lambda leaf: _placed(leaf, next(places), known), result)

    def _devices(self, func: Any, args: Any, kwargs: Any) -> list[torch.device | None]:
        """Where each result of an operation is. Raises RuntimeError if its arguments are on several devices."""
        if func.overloadpacket in _INDEXED and any(on_card(index) for index in args[1]) and not on_card(args[0]):
            raise RuntimeError(f"{func}: indices should be either on cpu or on the same device as the indexed tensor")
        try:
            with self._fakes:
                result = func(*tree_map(self._fake, args), **tree_map(self._fake, kwargs))
        except (DataDependentOutputException, DynamicOutputShapeException):  # one tensor's values
            first = next(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
            return [first.device] * 8
        return [leaf.device if isinstance(leaf, torch.Tensor) else None for leaf in tree_leaves(result)]

    def _fake(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        meta = torch.empty_strided(leaf.size(), leaf.stride(), dtype=leaf.dtype, device="meta")
        return FakeTensor(self._fakes, meta, leaf.device)


def on_card(leaf: Any) -> bool:
    """Whether it is a tensor on the card."""
    return isinstance(leaf, OnCard)


def _numbers(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return HOST
    return leaf.host if isinstance(leaf, OnCard) else leaf


def _placed(leaf: Any, device: torch.device | None, known: dict[int, OnCard]) -> Any:
    if not isinstance(leaf, torch.Tensor) or device is None or device.type != CARD.type:
        return leaf
    return known[id(leaf)] if id(leaf) in known else OnCard(leaf)


@contextlib.contextmanager
def card() -> Iterator[Callable[[Any], Any]]:
    """Within it the card can be used; gives the function that sends tensors, models and what holds tensors there."""
    generator = torch.Generator

    def on_host(device: Any = HOST) -> torch.Generator:
        return generator(HOST)

    fakes, lifts = FakeTensorMode(), torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor` makes them here and sends them
    torch.Generator = on_host  # type: ignore[assignment,misc]  # torch has none for a card that is not there
    try:
        # Modes are a thread's own, and backward passes would take another one for each device.
        with fakes, _Card(fakes), torch.autograd.set_multithreading_enabled(False):
            yield _send
    finally:
        torch.Generator = generator  # type: ignore[misc]
        torch._C._set_only_lift_cpu_tensors(lifts)


def _send(what: Any) -> Any:
    if isinstance(what, torch.nn.Module):
        return _send_model(what)
    return tree_map(lambda leaf: OnCard(leaf) if isinstance(leaf, torch.Tensor) else leaf, what)


def _send_model(model: Any) -> Any:
    """In place, as `Module.to` does; weights that are shared stay so."""
    sent: dict[int, Any] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                if id(weight) not in sent:
                    sent[id(weight)] = torch.nn.Parameter(OnCard(weight.data), weight.requires_grad)
                module._parameters[name] = sent[id(weight)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = OnCard(buffer)
    return model
