"""A folder's files are whole or absent, wherever the folder is."""

from __future__ import annotations

import pickle
import uuid
from pathlib import Path

import pytest

from squadron.core.errors import InputError, ResourceError
from squadron.core.folder import Folder


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(tmp_path / "run") if request.param == "local" else Folder(f"memory://{uuid.uuid4().hex}/run")


def test_what_is_written_is_read(folder: Folder) -> None:
    folder.write_json("a.json", {"x": 1})
    (folder / "deep" / "er").write_bytes("b.bin", b"\x00\x01")
    assert folder.read_json("a.json") == {"x": 1}
    assert folder.read_bytes("deep/er/b.bin") == b"\x00\x01"
    assert folder.ls() == ["a.json", "deep"]
    assert folder.size("a.json") == len(folder.read_bytes("a.json"))
    folder.remove("deep")
    assert folder.ls() == ["a.json"] and not folder.exists("deep")
    folder.remove("never there")


def test_lines_append_and_a_cut_line_is_left_out(folder: Folder) -> None:
    folder.append_line("log.jsonl", '{"a": 1}')
    folder.append_line("log.jsonl", '{"a": 2')
    assert folder.read_lines("log.jsonl") == [{"a": 1}]


def test_missing_and_malformed_files_are_named(folder: Folder) -> None:
    with pytest.raises(InputError, match=r"gone\.json"):
        folder.read_json("gone.json")
    folder.write_bytes("bad.json", b"{")
    with pytest.raises(InputError, match=r"bad\.json"):
        folder.read_json("bad.json")


def test_equal_by_place_and_picklable(folder: Folder) -> None:
    assert pickle.loads(pickle.dumps(folder)) == folder != folder / "x"


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    folder = Folder(tmp_path)
    folder.write_bytes("a", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="disk is full"):
        folder.write_bytes("a", b"new")
    assert folder.read_bytes("a") == b"old" and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="a file stands where a folder should be"):
        (Folder(tmp_path / "runs") / "x").write_bytes("a", b"")


def test_unknown_protocol_is_explained() -> None:
    with pytest.raises(InputError, match="no driver"):
        Folder("nosuch://bucket/x").exists("a")


def test_large_files_move_in_whole_and_come_back_from_any_store(tmp_path: Path) -> None:
    for number, folder in enumerate((Folder(tmp_path / "here"), Folder("memory://large-files"))):
        source = tmp_path / f"source-{number}"
        source.write_bytes(b"first")
        folder.put("deep/name", str(source))
        assert not source.exists() and folder.read_bytes("deep/name") == b"first"
        path = folder.local("deep/name")
        assert Path(path).read_bytes() == b"first" and folder.local("deep/name") == path
        source.write_bytes(b"the second")
        folder.put("deep/name", str(source))
        assert Path(folder.local("deep/name")).read_bytes() == b"the second", "a copy is of the file as it is"
        with pytest.raises(FileNotFoundError):
            Path(folder.local("absent")).read_bytes()
