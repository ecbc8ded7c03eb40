"""The kinds of torch's values that a strategy may hold: tensors, modules, optimizers, generators."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from squadron.core.errors import ConfigError
from squadron.federated.memory_arrays import load, npy
from squadron.federated.memory_kinds import put_stateful
from squadron.federated.memory_walk import Kind, Node, Putting, Taking, exactly, instance
from squadron.federated.reach import is_own, name_of

_PLAIN = frozenset(vars(torch.nn.Module()))


def _take_tensor(walk: Taking, value: torch.Tensor, where: str) -> Node:
    """The bytes of a tensor, with its axes sorted as they lie in memory, and its gradient."""
    if value.layout is not torch.strided or value.is_quantized or value.device.type == "meta":
        raise ConfigError(f"{where} is a tensor of an unusual layout", fix="keep a plain one, such as by to_dense()")
    if value.grad_fn is not None:
        raise ConfigError(f"{where} is a tensor with a history of operations", fix="call detach() before it is kept")
    if value.numel():
        walk.owns(value.untyped_storage().data_ptr(), where)
    plain = value.detach()
    order = sorted(range(plain.dim()), key=lambda axis: -plain.stride()[axis])
    flat = plain.cpu().permute(order).contiguous().resolve_conj().resolve_neg()
    node = {
        "buffer": walk.buffers.add(npy(flat.reshape(-1).view(torch.uint8).numpy(), where)),
        "dtype": str(value.dtype).removeprefix("torch."),
        "shape": list(flat.shape),
        "axes": order,
        "device": str(value.device),
        "class": type(value).__name__,
        "trained": value.requires_grad,
    }
    return node | ({"grad": walk.take(value.grad, f"{where}.grad")} if value.is_leaf and value.grad is not None else {})


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ConfigError(f"the saved strategy holds a tensor of {name}, which is no type of numbers")
    return found


def _put_tensor(walk: Putting, current: Any, node: Node) -> torch.Tensor:
    """Into the tensor that is there, which an optimizer may know, or else a new one."""
    flat = torch.from_numpy(load(walk, node)).view(_dtype(node["dtype"])).reshape(node["shape"])
    plain = flat.permute(np.argsort(node["axes"]).tolist()).to(node["device"])
    if isinstance(current, torch.Tensor) and current.is_leaf and walk.claim(current, name_of(type(current))):
        made = current
        made.data = plain
        made.requires_grad_(node["trained"])
    else:
        kind = torch.nn.Parameter if node["class"] == "Parameter" else torch.Tensor
        made = kind(plain, node["trained"]) if kind is torch.nn.Parameter else plain.requires_grad_(node["trained"])
    made.grad = walk.put(made.grad, node["grad"]) if "grad" in node else None
    return made


def _take_module(walk: Taking, value: torch.nn.Module, where: str) -> dict[str, Any]:
    """Parameters with gradients, buffers that are saved usually and those that are not, whether it trains, and what its
    class adds, of each module in it."""
    walk.needs(where, name_of(type(value)))
    parts = {}
    for name, module in value.named_modules():
        walk.reach.follow_class(type(module))
        added = _added(module)
        tensors = {"_parameters": dict(module._parameters), "_buffers": dict(module._buffers)}
        held = {**tensors, "training": module.training, "added": added}
        parts[name] = walk.named(held, f"{where}.{name}" if name else where)
    return {"class": name_of(type(value)), "modules": parts}


def _put_module(walk: Putting, current: Any, node: Node) -> Any:
    modules = dict(current.named_modules()) if isinstance(current, torch.nn.Module) else {}
    if modules.keys() != node["modules"].keys() or not walk.claim(current, node["class"]):
        raise ConfigError(f"the saved strategy holds a {node['class']}, and the new one another in its place")
    walk.objects[node["n"]] = current
    for name, held in node["modules"].items():
        module = modules[name]
        module.training = held["training"]
        for kind in ("_parameters", "_buffers"):
            there = getattr(module, kind)
            there.update(walk.put(dict(there), held[kind]))
        module.__dict__.update(walk.put(_added(module), held["added"]))
    return current


def _added(module: torch.nn.Module) -> dict[str, Any]:
    """What a class adds to a module: all where it is the user's, else settings such as a share of dropout."""
    added = {name: value for name, value in vars(module).items() if name not in _PLAIN}
    return {
        name: value for name, value in added.items() if is_own(type(module)) or isinstance(value, bool | int | float)
    }


def _take_optimizer(walk: Taking, value: torch.optim.Optimizer, where: str) -> dict[str, Any]:
    """By its state_dict. Loading it casts what it keeps for a parameter to the parameter's precision."""
    walk.needs(where, name_of(type(value)))
    for parameter, state in value.state.items():
        for name, kept in state.items():
            if torch.is_tensor(kept) and name != "step" and kept.is_floating_point() and kept.dtype != parameter.dtype:
                what = f"{where} keeps {name} as {kept.dtype} for a parameter of {parameter.dtype}"
                raise ConfigError(what, fix="keep parameters and optimizer in one precision")
    return {"class": name_of(type(value)), "content": walk.take(value.state_dict(), where)}


def _put_generator(walk: Putting, current: Any, node: Node) -> torch.Generator:
    made = torch.Generator(node["device"])
    made.set_state(torch.from_numpy(load(walk, node["state"])))
    return made


TORCH = [
    Kind("tensor", exactly(torch.Tensor, torch.nn.Parameter), _take_tensor, _put_tensor, numbered=True),
    Kind("module", instance(torch.nn.Module), _take_module, _put_module, numbered=True, early=True),
    Kind("optimizer", instance(torch.optim.Optimizer), _take_optimizer, put_stateful,
         numbered=True, early=True),
    Kind("torch generator", exactly(torch.Generator), lambda walk, value, where: {"device": str(value.device), "state":
         {"buffer": walk.buffers.add(npy(value.get_state().numpy(), where))}}, _put_generator, numbered=True),
    Kind("torch dtype", exactly(torch.dtype), lambda walk, value, _: {"value": str(value).removeprefix("torch.")},
         lambda walk, _, node: _dtype(node["value"])),
    Kind("torch device", exactly(torch.device), lambda walk, value, _: {"value": str(value)},
         lambda walk, _, node: torch.device(node["value"])),
    Kind("torch size", exactly(torch.Size), lambda walk, value, _: {"value": list(value)},
         lambda walk, _, node: torch.Size(node["value"])),
]  # fmt: skip
