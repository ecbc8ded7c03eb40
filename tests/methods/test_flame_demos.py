"""Shards of demonstrations: what is written is read, and a bad one is refused with its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.methods.flame.algorithm import to_policy_range
from squadron.methods.flame.demos import check_shards, import_recording, pool, read_shard, write_shard
from squadron.methods.flame.records import Shard
from squadron.sim.manipulation.expert import Episode
from squadron.sim.manipulation.spec import Factors, sample_environment

SPEC = sample_environment("close_box", 0, 0, Factors())


def _episodes(count: int, nan: bool = False) -> list[Episode]:
    rng = np.random.default_rng(0)
    episodes = []
    for n in range(count):
        steps = 3 + n
        states = rng.normal(size=(steps, 8)).astype(np.float32)
        if nan:
            states[1, 2] = np.nan
        episodes.append(
            Episode(
                images_THWC=rng.integers(0, 256, (steps, 64, 64, 3), dtype=np.uint8),
                states_TS=states,
                actions_TA=rng.uniform(0, 1, (steps, 8)).astype(np.float32),
                success=True,
            )
        )
    return episodes


def _write(folder: Folder, episodes: list[Episode]) -> Shard:
    write_shard(folder, "home.parquet", SPEC, 64, episodes)
    steps = sum(len(e.actions_TA) for e in episodes)
    counts = {"episodes": len(episodes), "steps": steps, "attempts": len(episodes)}
    return Shard.of(folder, "home.parquet", client_id=7, **counts)


def test_what_is_written_is_read_and_split_by_episode(tmp_path: Path) -> None:
    folder, episodes = Folder(tmp_path), _episodes(10)
    training, validation = read_shard(folder, _write(folder, episodes))
    both = pool([training, validation])
    assert np.array_equal(both.images_NHWC, np.concatenate([e.images_THWC for e in episodes]))
    assert np.array_equal(both.states_NS, np.concatenate([e.states_TS for e in episodes]))
    assert np.allclose(both.actions_NA, to_policy_range(np.concatenate([e.actions_TA for e in episodes])))
    assert len(validation) == len(episodes[-1].actions_TA)


def test_a_good_shard_passes(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    shard = _write(folder, _episodes(2))
    check_shards(folder, [shard])
    assert shard.steps == 7


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder, _: folder.remove("home.parquet"), r"home\.parquet is gone"),
        (lambda folder, data: folder.write_bytes("home.parquet", data[:-100]), "bytes; .* were written"),
        (
            lambda folder, data: folder.write_bytes("home.parquet", data[:500] + b"\x00" + data[501:]),
            "has changed since it was written",
        ),
    ],
)
def test_a_damaged_shard_is_refused_before_training(tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    folder = Folder(tmp_path)
    shard = _write(folder, _episodes(2))
    damage(folder, folder.read_bytes("home.parquet") if folder.exists("home.parquet") else b"")
    with pytest.raises(InputError, match=message) as error:
        check_shards(folder, [shard])
    assert "home.parquet" in str(error.value) and "fix:" in str(error.value)


def test_a_client_without_data_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    shard = _write(folder, _episodes(2)).model_copy(update={"episodes": 0, "steps": 0})
    with pytest.raises(InputError, match="client 7 has 0 episodes"):
        check_shards(folder, [shard])


def test_nan_and_truncation_are_named_when_read(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    shard = _write(folder, _episodes(2, nan=True))
    with pytest.raises(InputError, match="NaN or infinity"):
        read_shard(folder, shard)
    folder.write_bytes("home.parquet", folder.read_bytes("home.parquet")[:200])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_shard(folder, shard)


def _import(folder: Folder, name: str = "home.parquet", image_size: int = 64) -> Shard:
    row = {"id": name, "name": name, "folder": folder.url, "client_id": 3}
    return Shard.model_validate(import_recording(row, folder / "run", folder, image_size))


def test_a_users_own_recording_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    written = _write(folder, _episodes(5))
    shard = _import(folder)
    assert (shard.client_id, shard.episodes, shard.steps) == (3, 5, written.steps)
    ours, theirs = read_shard(folder, shard)[0], read_shard(folder, written)[0]
    assert np.array_equal(ours.actions_NA, theirs.actions_NA)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["action"]), "lacks the columns action"),
        (lambda t: t.slice(0, 0), "has no rows"),
        (lambda t: t.slice(0, 3), "one episode only"),
        (lambda t: t.replace_schema_metadata({"image_size": "32"}), "images of 32"),
        (lambda t: t.set_column(4, "action", [[[3.0] * 8] * len(t)]), "outside"),
        (lambda t: t.set_column(3, "state", [[[0.0] * 7] * len(t)]), "eight values"),
    ],
)
def test_a_recording_that_cannot_be_trained_on_is_refused(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    folder = Folder(tmp_path)
    _write(folder, _episodes(2))
    path = tmp_path / "home.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(InputError, match=message):
        _import(folder)


def test_recordings_of_another_image_size_are_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    _write(folder, _episodes(2))
    with pytest.raises(InputError, match=r"images of 64 pixels; demos\.image_size is 128"):
        _import(folder, image_size=128)
