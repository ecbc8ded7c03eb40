"""What is logged can be read back by the trackers' own readers; restarts add to it, secrets stay out."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from squadron.core.errors import ConfigError
from squadron.core.folder import Folder
from squadron.core.tracking import trackers

LOSSES = [(0, 1.0), (1, 0.5), (2, 0.25)]


@pytest.fixture(autouse=True)
def no_wandb_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))


def log_losses(names: list[str], folder: Folder, losses: list[tuple[int, float]] = LOSSES) -> None:
    tracker = trackers(names, "demo/federate", folder, {"seed": 7, "server": {"api_key": "hunter2"}})
    for step, loss in losses:
        tracker.log(step, {"federate/loss": loss, "federate/clients": 4})
    tracker.close()


def tensorboard_losses(folder: str) -> list[tuple[int, float]]:
    events = EventAccumulator(folder)
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("federate/loss")]


def wandb_records(file: Path) -> list[wandb_internal_pb2.Record]:
    """The records of a wandb file: after 7 bytes, for each checksum (4), length (2), type (1) and data."""
    data, records, place = file.read_bytes(), [], 7
    assert data[:4] == b":W&B" and len(data) < 32768, "one block of wandb's log format"
    while place + 7 <= len(data):
        length, kind = struct.unpack_from("<HB", data, place + 4)
        assert kind == 1, "a record in one piece"
        records.append(wandb_internal_pb2.Record.FromString(data[place + 7 : place + 7 + length]))
        place += 7 + length
    return records


def wandb_losses(file: Path) -> list[tuple[int, float]]:
    losses = []
    for record in wandb_records(file):
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): float(item.value_json) for item in record.history.item}
            losses.append((int(row["step"]), row["federate/loss"]))
    return losses


def test_tensorboard_reads_what_was_logged_also_after_a_restart(tmp_path: Path) -> None:
    log_losses(["tensorboard"], Folder(tmp_path))
    log_losses(["tensorboard"], Folder(tmp_path), [(3, 0.125)])
    assert tensorboard_losses(str(tmp_path / "tensorboard")) == [*LOSSES, (3, 0.125)]


def test_tensorboard_in_a_remote_folder(tmp_path: Path) -> None:
    remote = Folder(f"memory://{uuid.uuid4().hex}/stage")
    log_losses(["tensorboard"], remote)
    (name,) = (remote / "tensorboard").ls()
    (tmp_path / name).write_bytes((remote / "tensorboard").read_bytes(name))
    assert tensorboard_losses(str(tmp_path)) == LOSSES


def test_wandb_offline_holds_values_keeps_its_id_and_no_secret(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "stage")
    log_losses(["wandb"], folder)
    log_losses(["wandb"], folder, [(2, 0.3), (3, 0.125)])  # a restart does step 2 again
    files = sorted(Path(folder.path, "wandb").glob("offline-run-*/run-*.wandb"))
    assert [wandb_losses(file) for file in files] == [LOSSES, [(2, 0.3), (3, 0.125)]]
    assert {file.stem for file in files} == {f"run-{folder.read_json('wandb.json')['id']}"}
    everything = b"".join(file.read_bytes() for file in Path(folder.path).rglob("*") if file.is_file())
    assert b"hunter2" not in everything
    assert b"api_key" in everything


def test_wandb_in_a_remote_folder(tmp_path: Path) -> None:
    remote = Folder(f"memory://{uuid.uuid4().hex}/stage")
    log_losses(["wandb"], remote)
    (run,) = [name for name in (remote / "wandb").ls() if name.startswith("offline-run-")]
    (file,) = [name for name in (remote / "wandb" / run).ls() if name.endswith(".wandb")]
    local = tmp_path / file
    local.write_bytes((remote / "wandb" / run).read_bytes(file))
    assert wandb_losses(local) == LOSSES


def test_several_trackers_get_the_same(tmp_path: Path) -> None:
    log_losses(["tensorboard", "wandb", "tensorboard"], Folder(tmp_path))
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert tensorboard_losses(str(tmp_path / "tensorboard")) == wandb_losses(file) == LOSSES


def test_no_tracker_writes_nothing(tmp_path: Path) -> None:
    log_losses([], Folder(tmp_path / "stage"))
    assert not (tmp_path / "stage").exists()


def test_an_unknown_tracker_is_refused_before_any_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean tensorboard"):
        trackers(["wandb", "tensorbord"], "demo", Folder(tmp_path), {})
    assert list(tmp_path.iterdir()) == []


def test_online_wandb_without_a_login_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="wandb login"):
        trackers(["wandb"], "demo", Folder(tmp_path / "stage"), {})
