"""Copies that a user's processes share: nobody else's folder, and no content but the present one."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from squadron.core.errors import ResourceError
from squadron.core.folder import Folder
from squadron.core.private_folder import private_folder


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "tmp").mkdir()


def test_nobody_else_may_look_into_it(tmp_path: Path) -> None:
    place = Path(private_folder("files"))
    assert place.parent.parent == tmp_path / "tmp" and private_folder("files") == str(place)
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o700 for one in (place, place.parent))


@pytest.mark.parametrize("kind", ["link", "file", "anybody may write", "somebody else's"])
def test_a_planted_one_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    planted, elsewhere = tmp_path / "tmp" / f"squadron-{os.geteuid()}", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if kind == "link":
        planted.symlink_to(elsewhere)
    elif kind == "file":
        planted.touch()
    else:
        planted.mkdir()
        planted.chmod(0o777 if kind == "anybody may write" else 0o700)
    if kind == "somebody else's":
        if os.geteuid():
            pytest.skip("only root can give a folder away")
        os.chown(planted, 12345, 12345)
    place = Path(private_folder("files"))
    assert place == tmp_path / "home" / ".cache" / "squadron" / "private" / "files"
    assert not list(elsewhere.iterdir()) and stat.S_IMODE(place.stat().st_mode) == 0o700
    (tmp_path / "home" / ".cache" / "squadron" / "private").rename(tmp_path / "away")
    (tmp_path / "home" / ".cache" / "squadron" / "private").symlink_to(elsewhere)
    with pytest.raises(ResourceError, match=r"yours alone\n.*where: .*\n.*TMPDIR"):
        private_folder("files")


def test_a_remote_file_of_the_same_size_is_fetched_anew() -> None:
    folder = Folder("memory://of-one-size")
    for content in (b"one", b"two"):
        folder.write_bytes("name", content)
        path = Path(folder.local("name"))
        assert path.read_bytes() == content and folder.local("name") == str(path)
        assert path.is_relative_to(private_folder("files"))
