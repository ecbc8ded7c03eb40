"""Run folders are data, and may be anybody's: nothing in them is run, nothing out of them is touched, and whatever is
wrong with one is told in words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from squadron.core.artifacts import Artifact
from squadron.core.cli import main
from squadron.core.errors import InputError, SquadronError
from squadron.core.folder import Folder
from squadron.core.manifest import FORMAT, check_manifest
from squadron.core.marker import write_marker
from squadron.core.seals import seal, seal_yaml
from squadron.serve.runs import find_services
from tests.finished import one_line

STAGE = "make-0123456789ab"


def store_run(place: Path, job: str = "flame", stages: Any = (STAGE,), form: Any = FORMAT) -> Folder:
    """A finished run of one stage that has told a headline."""
    folder = Folder(place).make()
    stage = folder / "stages" / STAGE
    stage.write_json("started.json", {"inputs": {}})
    stage.write_json("headlines.json", {"headlines": [["value", "7"]]})
    write_marker(stage, {"path": "x"})
    folder.write_bytes("config.yaml", seal_yaml(b"a: 1\n"))
    folder.write_json("run.json", {"job": job, "format": form, "stages": list(stages)})
    return folder


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def closed(path: Path) -> None:
    path.chmod(0)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


BROKEN: dict[str, bytes | Callable[[Path], None]] = {
    "empty": b"",
    "binary": os.urandom(100),
    "list": b"[]",
    "number": b"7",
    "deep": b"[" * 10**6,
    "deep object": b'{"a":' * 10**5,
    "long number": b'{"job": %s}' % (b"9" * 10**4),
    "huge": b'{"job": "' + b"a" * 2**21 + b'"}',
    "no job": b"{}",
    "job is a list": b'{"job": ["flame"]}',
    "path": seal(json.dumps({"job": "/tmp/evil.py", "format": FORMAT}).encode()),
    "markup": seal(json.dumps({"job": "[red]x", "format": FORMAT}).encode()),
    "terminal": seal(json.dumps({"job": "\x1b[2J", "format": FORMAT}).encode()),
    "older": b'{"job": "flame", "format": 3, "squadron": "0.1"}',
    "later": b'{"job": "flame", "format": [99]}',
    "unsealed": json.dumps({"job": "flame", "format": FORMAT}).encode(),
    "stages are a number": seal(json.dumps({"job": "flame", "format": FORMAT, "stages": 5}).encode()),
    "stages lead out": seal(json.dumps({"job": "flame", "format": FORMAT, "stages": ["../../x"]}).encode()),
    "dangling": dangling,
    "no permission": closed,
    "folder": folder_instead,
}


def test_whatever_a_description_of_a_run_has_become_hides_no_other_run_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_run(tmp_path / "good")
    for name, damage in BROKEN.items():
        path = Path(store_run(tmp_path / name).path, "run.json")
        if isinstance(damage, bytes):
            path.write_bytes(damage)
        else:
            damage(path)
    assert main(["ls", "--runs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown and "flame" in shown and shown.count("not yet") == len(BROKEN) + 1
    for name in BROKEN:
        if name == "no permission" and os.geteuid() == 0:
            continue  # root may read it
        assert main(["report", str(tmp_path / name)]) == 2, name
        said = one_line(capsys)
        assert name in said and ("fix:" in said or name == "folder"), said
        with pytest.raises(SquadronError):
            find_services(Folder(tmp_path / name))


@pytest.mark.parametrize(
    "named", ["evil", "./evil", "{place}/evil.py", "{place}/evil", "os", "../jobs/flame", "evil.py"]
)
def test_a_run_folder_runs_no_code(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'done')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    store_run(tmp_path / "run", job=named.format(place=tmp_path))
    for command in (["serve"], ["report"]):
        main([*command, str(tmp_path / "run")])
    assert "fix:" in one_line(capsys)
    assert not (tmp_path / "done").exists()


def test_a_job_of_ones_own_serves_its_runs_where_the_command_line_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from squadron.core.config import Config\n"
        "from squadron.core.job import job\n"
        "@job(Config, services=lambda folder: f'of {folder.name}')\n"
        "def mine(run, config): ...\n"
    )
    run = store_run(tmp_path / "run", job="mine")
    with pytest.raises(InputError, match=r"--job mine\.py"):
        find_services(run)
    offered: Any = find_services(run, [str(tmp_path / "mine.py")])
    assert offered == "of run"


METHODS: dict[str, Callable[[Folder, str], Any]] = {
    "read_bytes": Folder.read_bytes,
    "read_json": Folder.read_json,
    "read_lines": Folder.read_lines,
    "open": Folder.open,
    "exists": Folder.exists,
    "size": Folder.size,
    "remove": Folder.remove,
    "file": Folder.file,
    "local": Folder.local,
    "fetch": lambda folder, name: folder.fetch(name, "/tmp"),
    "write_bytes": lambda folder, name: folder.write_bytes(name, b"x"),
    "write_json": lambda folder, name: folder.write_json(name, {}),
    "append_line": lambda folder, name: folder.append_line(name, "x"),
    "put": lambda folder, name: folder.put(name, "/dev/null"),
    "/": lambda folder, name: folder / name,
    "artifact": lambda folder, name: Artifact(path=name).locate(folder),
}


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "..", "a\0b"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", ["local", "memory://out"])
def test_a_name_that_leads_out_of_its_folder_is_refused(place: str, method: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("theirs")
    folder = Folder(tmp_path / "run" if place == "local" else place)
    with pytest.raises(InputError, match="leads out of its folder"):
        METHODS[method](folder, name)
    assert (tmp_path / "x").read_text() == "theirs"


@pytest.mark.parametrize("target", ["../theirs", "{place}/theirs", "../theirs/file", "../nowhere", ".."])
@pytest.mark.parametrize("name", ["metrics.jsonl", "stages/x", ".lock", f"stages/{STAGE}/panels", "report.html"])
def test_a_link_that_leads_out_is_refused_before_anything_is_read_or_written(
    name: str, target: str, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("theirs")
    run = store_run(tmp_path / "run")
    link = Path(run.path, name)
    depth = "../" * name.count("/") if target.startswith("..") else ""
    link.symlink_to(depth + target.format(place=tmp_path))
    with pytest.raises(InputError, match="a link leads out of the run folder") as told:
        check_manifest(run)
    assert told.value.where == str(link) and told.value.fix
    assert main(["report", run.url]) == main(["run", "flame", "smoke", "--run", run.url]) == 2
    assert (tmp_path / "theirs" / "file").read_text() == "theirs"


def test_links_within_a_run_and_to_the_whole_of_it_are_followed(tmp_path: Path) -> None:
    run = store_run(tmp_path / "disk" / "run")
    Path(run.path, "stages", "again").symlink_to(STAGE)
    (tmp_path / "run").symlink_to(run.path)
    assert check_manifest(Folder(tmp_path / "run"))["job"] == "flame"
