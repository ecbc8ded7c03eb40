"""The kinds of bytes, arrays and random numbers that a strategy may hold: Python's, NumPy's and Flower's."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from squadron.core.errors import ConfigError
from squadron.federated.memory_walk import Kind, Node, Putting, Taking, exactly, instance
from squadron.federated.reach import name_of
from squadron.federated.records import SharedArray, buffer_of, flatten, unflatten

_BITS = (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)
_BIT_GENERATORS: dict[str, Callable[..., Any]] = {kind.__name__: kind for kind in _BITS}


def npy(array: np.ndarray[Any, Any], where: str) -> bytes:
    """The array as a .npy file, which keeps whether its rows or its columns come first."""
    stream = io.BytesIO()
    try:
        np.save(stream, array, allow_pickle=False)
    except ValueError:
        raise ConfigError(f"{where} is an array of Python objects", fix="use a list, or an array of numbers") from None
    return stream.getvalue()


def load(walk: Putting, node: Node) -> np.ndarray[Any, Any]:
    """The array in a node's buffer, as a copy of its own."""
    array: np.ndarray[Any, Any] = np.load(io.BytesIO(walk.arrays[node["buffer"]]), allow_pickle=False)
    return array


def _take_array(walk: Taking, value: np.ndarray[Any, Any], where: str) -> Node:
    """A view that is neither way round is saved with its axes sorted, by how far apart its numbers lie: sums over it
    then come out the same to the bit."""
    owner: Any = value
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    if value.flags.writeable and value.size:
        walk.owns(id(owner), where)
    order = sorted(range(value.ndim), key=lambda axis: -abs(value.strides[axis]))
    sorted_axes = np.ascontiguousarray(value.transpose(order)) if value.ndim else value
    return {"buffer": walk.buffers.add(npy(sorted_axes, where)), "axes": order, "fixed": not value.flags.writeable}


def _put_array(walk: Putting, current: Any, node: Node) -> np.ndarray[Any, Any]:
    array = load(walk, node)
    array = array.transpose(np.argsort(node["axes"])) if array.ndim else array
    array.flags.writeable = not node["fixed"]
    return array


def _take_generator(walk: Taking, value: np.random.Generator, where: str) -> Node:
    """Its seed is kept too, as new generators are spawned from it."""
    bits = value.bit_generator
    seed = getattr(bits, "seed_seq", None)
    if type(bits).__name__ not in _BIT_GENERATORS:
        raise ConfigError(f"{where} draws from a {name_of(type(bits))}", fix="use np.random.default_rng(seed)")
    about = None
    if isinstance(seed, np.random.SeedSequence):
        about = [seed.entropy, list(seed.spawn_key), seed.pool_size, seed.n_children_spawned]
    return {"class": type(bits).__name__, "state": walk.take([bits.state, about], where)}


def _put_generator(walk: Putting, current: Any, node: Node) -> np.random.Generator:
    state, about = walk.put(None, node["state"])
    seed = np.random.SeedSequence(0)
    if about is not None:
        entropy, spawn_key, pool_size, children = about
        seed = np.random.SeedSequence(entropy, spawn_key=spawn_key, pool_size=pool_size, n_children_spawned=children)
    bits = _BIT_GENERATORS[node["class"]](seed)
    bits.state = state
    return np.random.Generator(bits)


def _put_random_state(walk: Putting, current: Any, node: Node) -> np.random.RandomState:
    made = np.random.RandomState()
    made.set_state(walk.put(None, node["state"]))
    return made


def _take_random(walk: Taking, value: random.Random, where: str) -> Node:
    version, words, gauss = value.getstate()
    return {"state": [version, list(words), gauss]}


def _put_random(walk: Putting, current: Any, node: Node) -> random.Random:
    version, words, gauss = node["state"]
    made = random.Random()
    made.setstate((version, tuple(words), gauss))
    return made


def _put_flower_array(walk: Putting, current: Any, node: Node) -> Array:
    dtype, shape, stype, place = node["about"]
    return SharedArray(dtype, tuple(shape), stype, walk.arrays[place])


def _take_flower_array(walk: Taking, value: Array, where: str) -> Node:
    return {"about": [value.dtype, list(value.shape), value.stype, walk.buffers.add(buffer_of(value))]}


def _take_bytes(walk: Taking, value: bytes | bytearray, where: str) -> Node:
    return {"buffer": walk.buffers.add(npy(np.frombuffer(bytes(value), np.uint8), where))}


def _take_record(walk: Taking, value: Any, where: str) -> Node:
    records = value if isinstance(value, RecordDict) else RecordDict({"": value})
    return {"records": flatten(records, walk.buffers)}


def _put_record(walk: Putting, current: Any, node: Node) -> Any:
    records = unflatten(node["records"], dict(walk.arrays))
    return records if node["is"] == "records" else records[""]


ARRAYS = [
    Kind("bytes", exactly(bytes), _take_bytes, lambda walk, _, node: load(walk, node).tobytes()),
    Kind("bytearray", exactly(bytearray), _take_bytes,
         lambda walk, _, node: bytearray(load(walk, node).tobytes()), numbered=True),
    Kind("scalar", instance(np.generic), lambda walk, value, where: {"buffer": walk.buffers.add(npy(value, where))},
         lambda walk, _, node: load(walk, node)[()]),
    Kind("array", exactly(np.ndarray), _take_array, _put_array, numbered=True),
    Kind("dtype", instance(np.dtype), lambda walk, value, _: {"value": value.str},
         lambda walk, _, node: np.dtype(node["value"])),
    Kind("record", instance(ArrayRecord, ConfigRecord, MetricRecord), _take_record, _put_record, numbered=True),
    Kind("records", instance(RecordDict), _take_record, _put_record, numbered=True),
    Kind("flower array", instance(Array), _take_flower_array, _put_flower_array, numbered=True),
    Kind("random", exactly(random.Random), _take_random, _put_random, numbered=True),
    Kind("generator", exactly(np.random.Generator), _take_generator, _put_generator, numbered=True),
    Kind("random state", exactly(np.random.RandomState), lambda walk, value, where:
         {"state": walk.take(value.get_state(legacy=False), where)}, _put_random_state, numbered=True),
]  # fmt: skip
