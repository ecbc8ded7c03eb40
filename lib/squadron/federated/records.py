"""Flower records as named byte buffers: for the object store, where nobody copies them, and for files, without pickle.

Flower keeps every array as the bytes of a .npy file. Those bytes are carried as they are, so nothing is encoded twice.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from typing import Any, TypeAlias

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from squadron.core.errors import InputError

Buffer: TypeAlias = bytes | memoryview
_HEADER_BYTES = 4096  # far more than any .npy header of a plain array
_RECORDS = {"arrays": ArrayRecord, "metrics": MetricRecord, "config": ConfigRecord}


class SharedArray(Array):
    """An Array whose bytes stay in shared memory until someone asks for them.

    It behaves as Flower's own: `numpy()` gives a fresh array that the caller may write to, `data` gives bytes.
    """

    def __init__(self, dtype: str, shape: tuple[int, ...], stype: str, buffer: Buffer) -> None:
        self.__dict__.update(dtype=dtype, shape=shape, stype=stype, buffer=buffer)

    def __getattr__(self, name: str) -> Any:
        if name != "data":
            raise AttributeError(name)
        self.__dict__["data"] = bytes(self.__dict__["buffer"])
        return self.__dict__["data"]

    def __reduce__(self) -> tuple[Any, ...]:
        return Array, (self.dtype, self.shape, self.stype, self.data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        about = (self.dtype, self.shape, self.stype)
        return about == (other.dtype, other.shape, other.stype) and buffer_of(self) == buffer_of(other)

    __hash__ = None  # type: ignore[assignment]

    def numpy(self) -> NDArray[Any]:
        if self.stype != "numpy.ndarray":
            return super().numpy()
        return np.array(view(self))


def buffer_of(array: Array) -> Buffer:
    """The .npy bytes of an array, without copying them."""
    inside = array.__dict__
    buffer: Buffer = inside["data"] if "data" in inside else inside["buffer"]
    return buffer


def view(array: Array) -> NDArray[Any]:
    """The array as read-only NumPy, without copying it. Raises ValueError if its bytes are no plain .npy file."""
    buffer = buffer_of(array)
    head = io.BytesIO(bytes(memoryview(buffer)[:_HEADER_BYTES]))
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(head)
    if dtype.hasobject:
        raise ValueError("arrays of Python objects are not read")
    return np.ndarray(shape, dtype, buffer=buffer, offset=head.tell(), order="F" if fortran else "C")


def first_non_finite(records: RecordDict) -> str:
    """Where the first NaN or infinity among the arrays is, in words; empty if all are finite."""
    for record in records.values():
        if not isinstance(record, ArrayRecord):
            continue
        for name, array in record.items():
            if array.stype != "numpy.ndarray":
                continue
            values = view(array)
            # A finite sum proves all finite, and is quicker than looking at each; overflow is settled by looking.
            with np.errstate(all="ignore"):
                if values.dtype.kind not in "fc" or np.isfinite(values.sum()):
                    continue
            nan, finite = int(np.isnan(values).sum()), int(np.isfinite(values).sum())
            if finite < values.size:
                return f"array {name!r} holds {nan} NaN and {values.size - finite - nan} infinite values"
    return ""


def write_npz(arrays: dict[str, Buffer], about: Any) -> bytes:
    """An .npz file that np.load opens, from .npy bytes by name and a JSON value."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        # ZipInfo's own date is a constant, so that equal records make equal files.
        archive.writestr(zipfile.ZipInfo("about.json"), json.dumps(about))
        for name, data in arrays.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), data)
    return stream.getvalue()


_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, KeyError, ValueError, EOFError, OSError, RuntimeError)
"""What `zipfile` raises for a file that is none any more: of another method, encrypted, cut, with another sum."""


def read_npz(data: Buffer, where: str) -> tuple[dict[str, bytes], Any]:
    """The .npy bytes by name and the JSON value. Raises InputError if the file is damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            about = json.loads(archive.read("about.json"))
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name.removesuffix(".npy"): archive.read(name) for name in names}, about
    except _DAMAGE as error:
        fix = "remove this file: an earlier one is used"
        raise InputError(f"the saved state is damaged: {error}", where=where, fix=fix) from None


class BufferTable:
    """Named buffers; the same buffer added twice is kept once."""

    def __init__(self) -> None:
        self.by_name: dict[str, Buffer] = {}
        self._names: dict[int, str] = {}

    def add(self, data: Buffer) -> str:
        """The name under which these bytes are kept."""
        if id(data) not in self._names:
            self._names[id(data)] = f"a{len(self.by_name)}"
            self.by_name[self._names[id(data)]] = data
        return self._names[id(data)]


def flatten(records: RecordDict, buffers: BufferTable) -> list[Any]:
    """The JSON skeleton of `records`; the bytes of its arrays go into `buffers`."""
    skeleton: list[Any] = []
    for key, record in records.items():
        if isinstance(record, ArrayRecord):
            entries = [
                [name, array.dtype, list(array.shape), array.stype, buffers.add(buffer_of(array))]
                for name, array in record.items()
            ]
            skeleton.append([key, "arrays", entries])
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            skeleton.append([key, kind, [[name, _plain(value)] for name, value in record.items()]])
    return skeleton


def unflatten(skeleton: list[Any], arrays: dict[str, Any]) -> RecordDict:
    """The records that `flatten` took apart. Array bytes are used where they lie."""
    records = RecordDict()
    for key, kind, entries in skeleton:
        if kind == "arrays":
            record = ArrayRecord()
            for name, dtype, shape, stype, place in entries:
                record[name] = SharedArray(dtype, tuple(shape), stype, arrays[place])
            records[key] = record
        else:
            records[key] = _RECORDS[kind]({name: _unplain(value) for name, value in entries})
    return records


def pack(records: RecordDict) -> tuple[list[Any], dict[str, pickle.PickleBuffer]]:
    """Records for the object store, their arrays as buffers that Ray lays down and hands out without copying."""
    buffers = BufferTable()
    skeleton = flatten(records, buffers)
    return skeleton, {name: pickle.PickleBuffer(data) for name, data in buffers.by_name.items()}


def unpack(packed: tuple[list[Any], dict[str, Any]]) -> RecordDict:
    """The records that `pack` prepared, as they come out of the object store."""
    return unflatten(*packed)


def dump_records(records: RecordDict) -> bytes:
    """Records as one .npz file; empty bytes for no records."""
    if not records:
        return b""
    buffers = BufferTable()
    skeleton = flatten(records, buffers)
    return write_npz(buffers.by_name, skeleton)


def load_records(data: Buffer, where: str = "") -> RecordDict:
    """The records in an .npz file that `dump_records` wrote."""
    if not data:
        return RecordDict()
    arrays, skeleton = read_npz(data, where)
    return unflatten(skeleton, arrays)


def _plain(value: Any) -> Any:
    """Configuration values may be bytes, which JSON has not."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _unplain(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"])
    if isinstance(value, list):
        return [_unplain(item) for item in value]
    return value
