"""Demonstrations on disk: one Parquet shard a home, one row a step, the environment's specification in the metadata.

Columns: `episode` int32, `step` int32, `image` fixed-size binary (height × width × 3, uint8), `state` and `action`
fixed-size lists of float32 in the environment's range; the schema's metadata has `image_size`, 64 if it is missing.
Anyone's recordings in this form can be trained on: `demos.recordings` names their folder, one file a home.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder, relative
from squadron.methods.flame.algorithm import Demonstrations, split_episodes, to_policy_range
from squadron.methods.flame.records import Shard

if TYPE_CHECKING:
    import pyarrow as pa

    from squadron.sim.manipulation.expert import Episode


def write_shard(folder: Folder, name: str, spec: Config, image_size: int, episodes: Sequence[Episode]) -> None:
    """Write the episodes of one home as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lengths = [len(episode.actions_TA) for episode in episodes]
    images = np.concatenate([episode.images_THWC for episode in episodes])
    table = pa.table(
        {
            "episode": pa.array(np.repeat(np.arange(len(episodes), dtype=np.int32), lengths)),
            "step": pa.array(np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])),
            "image": _fixed(images, pa.binary(image_size * image_size * 3)),
            "state": _fixed(
                np.concatenate([e.states_TS for e in episodes]).astype(np.float32), pa.list_(pa.float32(), 8)
            ),
            "action": _fixed(
                np.concatenate([e.actions_TA for e in episodes]).astype(np.float32), pa.list_(pa.float32(), 8)
            ),
        }
    )
    metadata = {"spec": spec.model_dump_json(), "image_size": str(image_size)}
    stream = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), stream, compression="zstd", use_dictionary=False)
    folder.write_bytes(name, stream.getvalue())


def check_shards(run_folder: Folder, shards: Sequence[Shard]) -> None:
    """Refuse a missing, truncated or altered shard, and a client without data, before any training starts."""
    for shard in shards:
        where = shard.locate(run_folder)
        if shard.steps == 0 or shard.episodes < 2:
            fix = "give it at least two episodes, one to train and one to validate, or leave the client out"
            raise InputError(f"client {shard.client_id} has {shard.episodes} episodes", where=where, fix=fix)


def read_shard(run_folder: Folder, shard: Shard) -> tuple[Demonstrations, Demonstrations]:
    """Training and validation steps of one home, actions in the policy's range. Raises InputError on a bad file."""
    episode_N, data = parse_shard(run_folder.read_bytes(shard.path), run_folder.file(shard.path))
    training_N = episode_N < split_episodes(shard.episodes)
    return _select(data, training_N), _select(data, ~training_N)


def parse_shard(content: bytes, where: str) -> tuple[np.ndarray, Demonstrations]:
    """Each step's episode, numbered from 0, and all steps, actions in the policy's range.

    Raises InputError for a file that is not Parquet, lacks a column, or holds values of a wrong size or not finite.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"not a readable Parquet file: {error}", where=where) from None
    missing = {"episode", "image", "state", "action"} - set(table.column_names)
    if missing:
        raise InputError(f"the shard lacks the columns {', '.join(sorted(missing))}", where=where)
    if not len(table):
        raise InputError("the shard has no rows", where=where)
    size = int((table.schema.metadata or {}).get(b"image_size", 64))
    try:
        images_NHWC = _values(table["image"], np.uint8).reshape(len(table), size, size, 3)
        states_NS = _values(table["state"], np.float32).reshape(len(table), 8)
        actions_NA = to_policy_range(_values(table["action"], np.float32).reshape(len(table), 8))
    except (ValueError, AttributeError) as error:
        what = f"images of {size} × {size} × 3 bytes and eight values of state and action are needed: {error}"
        raise InputError(what, where=where) from None
    if not (np.isfinite(states_NS).all() and np.isfinite(actions_NA).all()):
        raise InputError("states or actions hold NaN or infinity", where=where)
    _, episode_N = np.unique(table["episode"].to_numpy(), return_inverse=True)
    return episode_N, Demonstrations(images_NHWC, states_NS, actions_NA)


def import_recording(row: dict[str, Any], folder: Folder, run_folder: Folder, image_size: int) -> dict[str, Any]:
    """Check a shard of the user's own and take it into the run. Raises InputError if it cannot be trained on."""
    source = Folder(row["folder"])
    content, where = source.read_bytes(row["name"]), source.file(row["name"])
    episode_N, data = parse_shard(content, where)
    episodes = int(episode_N.max()) + 1
    if data.images_NHWC.shape[1] != image_size:
        raise InputError(f"images of {data.images_NHWC.shape[1]} pixels; demos.image_size is {image_size}", where=where)
    if episodes < 2:
        raise InputError("one episode only; a home needs two, one to train and one to validate", where=where)
    if np.abs(data.actions_NA).max() > 1 + 1e-6:
        raise InputError("actions lie outside [-1, 1] for velocities or [0, 1] for the gripper", where=where)
    folder.write_bytes(row["name"], content)
    counts = {"episodes": episodes, "steps": len(data), "attempts": episodes}
    path = relative(folder, run_folder, row["name"])
    shard = Shard.of(run_folder, path, client_id=row["client_id"], **counts)
    return shard.model_dump(mode="json")


@lru_cache(maxsize=8)
def cached_shard(run_folder: Folder, shard: Shard) -> tuple[Demonstrations, Demonstrations]:
    """`read_shard`, remembering the homes a worker visited last."""
    return read_shard(run_folder, shard)


def pool(parts: Sequence[Demonstrations]) -> Demonstrations:
    """All steps of several homes as one data set."""
    return Demonstrations(
        np.concatenate([part.images_NHWC for part in parts]),
        np.concatenate([part.states_NS for part in parts]),
        np.concatenate([part.actions_NA for part in parts]),
    )


def _select(data: Demonstrations, chosen_N: np.ndarray) -> Demonstrations:
    return Demonstrations(data.images_NHWC[chosen_N], data.states_NS[chosen_N], data.actions_NA[chosen_N])


def _fixed(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Rows of a contiguous array as fixed-size binary, or as fixed-size lists, without copying."""
    import pyarrow as pa

    flat = np.ascontiguousarray(values).reshape(-1)
    if pa.types.is_fixed_size_binary(kind):
        return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, pa.py_buffer(flat)])
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), kind.list_size)


def _values(column: pa.ChunkedArray, dtype: type) -> np.ndarray:
    import pyarrow as pa

    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    if pa.types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        start = array.offset * width
        return np.frombuffer(array.buffers()[1], dtype)[start : start + len(array) * width]
    return array.flatten().to_numpy().astype(dtype, copy=False)
