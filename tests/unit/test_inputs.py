"""Input files are known by their content, and fields that decide nothing are no part of an identity."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from squadron.core import cli, hub, registry, runner
from squadron.core.config import Config, decides, fingerprint, load_config, operational, to_yaml
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.inputs import InputPath, check_inputs
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.data.record_files import RecordsPath
from squadron.train.models.builders import local_folder
from squadron.tune.command import make_spec


class Inner(Config):
    rate: float = 0.1
    timeout_s: float = operational(10.0, gt=0)


class Settings(Config):
    path: InputPath | None = None
    inner: Inner = Inner()
    files: tuple[InputPath, ...] = ()


class Found(Config):
    place: str
    lines: int


def count_lines(stage: Stage, config: Settings) -> Found:
    """Count the lines of a file."""
    assert config.path is not None
    stage.folder.append_line("calls.jsonl", "1")
    return Found(place=os.path.abspath(config.path), lines=len(Path(config.path).read_text().splitlines()))


def show(stage: Stage, found: Found) -> Found:
    """Show what was counted."""
    return found


def _count(folder: Path, **settings: Any) -> tuple[Found, int]:
    run = Run("lines", Settings.model_validate(settings), Folder(folder), Profile(name="auto"), track=())
    run.open()
    found = run.stage(show, run.stage(count_lines, run.config))  # type: ignore[arg-type]
    run.close()
    return found, sum(len(path.read_text().splitlines()) for path in folder.glob("stages/count_lines-*/calls.jsonl"))


def test_a_copied_or_touched_file_runs_nothing_again_and_a_changed_byte_does(tmp_path: Path) -> None:
    file, copy = tmp_path / "a.txt", tmp_path / "elsewhere.txt"
    file.write_text("1\n2\n")
    assert _count(tmp_path / "r", path=str(file))[1] == 1
    os.utime(file, (1, 1))
    shutil.copy(file, copy)
    assert _count(tmp_path / "r", path=str(file))[1] == 1
    file.unlink()
    found, calls = _count(tmp_path / "r", path=str(copy))
    assert calls == 1 and found.place == str(copy), "what is kept names the file where it is now"
    before = os.stat(copy)
    copy.write_text("1\n3\n")
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time: the content tells
    assert _count(tmp_path / "r", path=str(copy))[1] == 2


def test_a_file_whose_content_changed_is_said_to_have_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.txt"
    for text in ("1\n", "2\n"):
        file.write_text(text)
        _count(tmp_path / "r", path=str(file))
    said = "".join(capsys.readouterr().out.split())  # lines are wrapped anywhere
    assert f"count_linesrunsagain,itsearlierresultiskept.Changed:whatisin{file}" in said


def test_a_setting_that_decides_nothing_runs_nothing_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("1\n")
    _count(tmp_path / "r", path=str(file))
    assert _count(tmp_path / "r", path=str(file), inner={"timeout_s": 99})[1] == 1
    assert "kept; of no effect on it: config.inner.timeout_s 10.0 → 99.0" in capsys.readouterr().out
    assert _count(tmp_path / "r", path=str(file), inner={"rate": 0.2})[1] == 2


def test_folders_lists_and_names_have_an_identity(tmp_path: Path) -> None:
    (tmp_path / "one" / "deep").mkdir(parents=True)
    (tmp_path / "one" / "deep" / "a.bin").write_bytes(b"a")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (Settings.model_validate({"files": [str(tmp_path / name), "org/model"]}) for name in ("one", "two"))
    assert fingerprint(one) == fingerprint(two) != fingerprint(Settings.model_validate({"files": ["org/model"]}))
    (tmp_path / "two" / "deep" / "a.bin").rename(tmp_path / "two" / "deep" / "b.bin")
    assert fingerprint(one) != fingerprint(two)


def test_an_input_path_is_written_as_a_text_and_read_back(tmp_path: Path) -> None:
    config = Settings.model_validate({"path": "data/a.jsonl", "files": ["x"]})
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    again = load_config(Settings, tmp_path / "c.yaml")
    assert again == config and isinstance(again.path, InputPath) and isinstance(again.files[0], InputPath)
    assert pickle.loads(pickle.dumps(config)) == config


def test_missing_files_are_refused_by_their_setting_and_names_of_a_hub_are_not(tmp_path: Path) -> None:
    named = {"path": "rows.jsonl", "files": ["org/model-7.5B", str(tmp_path / "no"), "s3://bucket/a.jsonl"]}
    with pytest.raises(InputError) as error:
        check_inputs(Settings.model_validate(named))
    assert error.value.where == f"path: rows.jsonl; files.1: {tmp_path / 'no'}"
    check_inputs(Settings.model_validate({"path": str(tmp_path)}))


def test_a_run_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"job": "lines", "squadron": "0.0.9"}')
    run = Run("lines", Settings(), Folder(tmp_path), Profile(name="auto"), track=())
    with pytest.raises(InputError, match=r"another version of Squadron \(0\.0\.9\)"):
        run.open()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": [["b"], "c"]}', '{"a": [[1, 2, 3, 4], "c"]}'])
def test_damaged_digests_are_computed_anew(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.txt"
    file.write_text("1\n")
    assert _count(tmp_path / "r", path=str(file))[1] == 1
    (tmp_path / "r" / "inputs.json").write_text(text.replace('"a"', f'"{file}"'))
    assert _count(tmp_path / "r", path=str(file))[1] == 1


SOUNDS_OPERATIONAL = ("timeout", "deadline", "batch_size", "every", "concurrency", "attempts", "cap_usd", "per_minute",
                      "film", "shown", "restarts", "keep_last", "_usd_", "gpu")  # fmt: skip


def _configs(kind: Any, seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in seen:
        seen.add(kind)
        yield kind
        for field in kind.model_fields.values():
            if decides(field):
                yield from _configs(field.annotation, seen)
    for part in get_args(kind):
        yield from _configs(part, seen)


@pytest.mark.parametrize("job", registry.list_jobs())
def test_a_field_whose_name_sounds_operational_says_what_it_is(job: str) -> None:
    for config in _configs(registry.load_job(job).config_type, set()):
        for name, field in config.model_fields.items():
            if any(word in name for word in SOUNDS_OPERATIONAL):
                declared = isinstance(field.json_schema_extra, dict) and "decides" in field.json_schema_extra
                assert declared, f"{config.__name__}.{name}: declare it by operational(…) or decisive(…)"


@pytest.mark.parametrize("job", registry.list_jobs())
def test_each_job_has_fields_of_both_kinds(job: str) -> None:
    fields = [
        field for kind in _configs(registry.load_job(job).config_type, set()) for field in kind.model_fields.values()
    ]
    assert {decides(field) for field in fields} == {True, False}


class Reading(Config):
    records: RecordsPath | None = None
    model: InputPath | None = None
    revision: str | None = None


def test_a_folder_of_records_is_known_by_what_is_read_of_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_text("{}")

    def state() -> str:
        return fingerprint(Reading(records=RecordsPath(data)))

    before = state()
    for unread in ("._a.jsonl", ".cache/x.jsonl", "README.md", "notes.txt", "old/a.jsonl", "stats.json", "a.jsonl~"):
        (data / unread).parent.mkdir(exist_ok=True)
        (data / unread).write_text("x")
        assert state() == before, unread
    seen = [before]
    for name, text in (("b.parquet", "x"), ("b.parquet", "y"), ("C.JSONL.GZ", "x"), ("parts.parquet/0.parquet", "x")):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_text(text)
        seen.append(state())
    (data / "b.parquet").rename(data / "d.parquet")
    seen.append(state())
    (data / "d.parquet").unlink()
    seen.append(state())
    assert len(set(seen)) == len(seen)


def test_a_model_folder_is_known_by_its_files_through_links(tmp_path: Path) -> None:
    model, blobs = tmp_path / "model", tmp_path / "blobs"
    model.mkdir()
    blobs.mkdir()
    (blobs / "0").write_text("weights")
    (model / "model.safetensors").symlink_to(blobs / "0")
    (model / "more").symlink_to(blobs)
    (blobs / "around").symlink_to(model)
    before = fingerprint(Reading(model=InputPath(model)))
    (model / "README.md").write_text("x")
    (model / ".cache").mkdir()
    (model / ".cache" / "x").write_text("x")
    assert fingerprint(Reading(model=InputPath(model))) == before
    (blobs / "0").write_text("changed")
    assert fingerprint(Reading(model=InputPath(model))) != before


def test_what_can_be_read_but_once_or_not_at_all_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        fingerprint(Reading(records=RecordsPath(tmp_path / "pipe")))


@contextlib.contextmanager
def _server(answers: dict[str, tuple[bytes, dict[str, str]]]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content, headers = answers.get(self.path, (b"", {}))
            self.send_response(200 if self.path in answers else 404)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("header", ["ETag", "Last-Modified", None])
def test_a_file_behind_an_address_that_changed_is_noticed(header: str | None) -> None:
    """Even of the same size, by a server that tells nothing of its files."""
    with _server(answers := {}) as address:
        config = Reading(records=RecordsPath(f"{address}/a.jsonl"))

        def serve(content: bytes, state: str) -> str:
            answers["/a.jsonl"] = (content, {header: state} if header else {})
            return fingerprint(config)

        one = serve(b"{}\n", "Mon, 30 Nov 2026 09:00:00 GMT")
        assert serve(b"{}\n", "Mon, 30 Nov 2026 09:00:00 GMT") == one
        assert serve(b"[]\n", "Mon, 30 Nov 2026 09:00:01 GMT") != one


def test_a_folder_behind_an_address_is_known_by_what_is_read_of_it() -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    files.pipe("/records/a.jsonl", b"{}")
    config = Reading(records=RecordsPath("memory://records"))
    before = fingerprint(config)
    files.pipe("/records/.cache/b.jsonl", b"{}")
    files.pipe("/records/notes.txt", b"{}")
    assert fingerprint(config) == before
    files.pipe("/records/b.jsonl", b"{}")
    assert fingerprint(config) != before
    files.rm("/records", recursive=True)


def test_names_of_a_hub_stand_for_their_commits(tmp_path: Path) -> None:
    """Asked where the hub answers; else what its cache holds, and then what an earlier start was told."""
    script = tmp_path / "ask.py"
    script.write_text(
        "import sys\nfrom squadron.core.config import fingerprint\nfrom squadron.core.folder import Folder\n"
        "from squadron.core.inputs import recall, remember\n"
        "from tests.unit.test_inputs import Reading\nfolder = Folder(sys.argv[1])\nrecall(folder)\n"
        "one = Reading(records='org/data', model='org/model', revision=sys.argv[2] if len(sys.argv) > 2 else None)\n"
        "print(one.records.identity(), one.model.identity(one.revision), fingerprint(one))\nremember(folder)\n"
    )
    (tmp_path / "run").mkdir()

    def ask(address: str, *arguments: str, run: str = "run", **more: str) -> str:
        home = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": address, "HF_TOKEN": "", "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, str(script), str(tmp_path / run), *arguments]
        paths = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2])])
        environment = os.environ | {"PYTHONPATH": paths} | home | more
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    def told(commit: str) -> tuple[bytes, dict[str, str]]:
        return json.dumps({"sha": commit * 40}).encode(), {}

    answers = {"/api/datasets/org/data": told("a"), "/api/models/org/model": told("b")}
    answers["/api/models/org/model/revision/next"] = told("c")
    with _server(answers) as address:
        first = ask(address)
        assert "a" * 40 in first and "b" * 40 in first and ask(address) == first
        assert "c" * 40 in ask(address, "next")
        answers["/api/datasets/org/data"] = told("d")
        assert "d" * 40 in (second := ask(address)) and second != first
    assert ask(address) == second, "nobody answers: what the last start was told"
    assert ask(address, HF_HUB_OFFLINE="1") == second
    (tmp_path / "other").mkdir()
    assert "org/data org/model" in ask(address, run="other")
    refs = tmp_path / "hf" / "hub" / "models--org--model" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("e" * 40)
    assert "e" * 40 in ask(address, run="other"), "what the cache holds would be read"


def test_what_is_known_of_a_model_travels_to_workers() -> None:
    hub.commits["models/org/known@main"] = "f" * 40
    packed = pickle.dumps(InputPath("org/known"))
    hub.commits.clear()
    assert pickle.loads(packed).identity() == {"hub": "org/known", "commit": "f" * 40}
    hub.settled.clear()


def test_a_model_behind_an_address_is_fetched_again_when_it_changed() -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    for text in (b"one", b"two"):
        files.pipe("/fetched/config.json", text)
        assert (Path(local_folder("memory://fetched")) / "config.json").read_bytes() == text
    files.rm("/fetched", recursive=True)


def test_of_a_model_behind_a_url_that_is_copied_what_it_consists_of() -> None:
    """Modules of a sentence encoder have folders of their own; checkpoints next to a model are none of it."""
    store = Folder("memory://nested")
    files = {"config.json": b"{}", "checkpoint-5/config.json": b"{}", "1_Pooling/config.json": b'{"a": 1}'}
    for name, content in files.items():
        store.write_bytes(name, content)
    alone = Path(local_folder("memory://nested"))
    assert [path.name for path in alone.rglob("*") if path.is_file()] == ["config.json"]
    store.write_bytes("modules.json", b"[]")
    copied = Path(local_folder("memory://nested"))
    assert {str(path.relative_to(copied)) for path in copied.rglob("*") if path.is_file()} == {*files, "modules.json"}
    assert (copied / "1_Pooling" / "config.json").read_bytes() == b'{"a": 1}'


def test_the_model_that_an_adapter_names_is_part_of_it(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
    (base / "model.safetensors").write_text("one")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = fingerprint(Reading(model=InputPath(adapter)))
    (base / "model.safetensors").write_text("two")
    assert fingerprint(Reading(model=InputPath(adapter))) != before
    for text in ("[]", "{", '{"base_model_name_or_path": null}', json.dumps({"base_model_name_or_path": str(adapter)})):
        (adapter / "adapter_config.json").write_text(text)
        fingerprint(Reading(model=InputPath(adapter)))


@pytest.mark.parametrize("over", ["data.seed=1,2", "data.path={file},{file}"])
def test_a_sweep_is_of_what_its_files_hold(tmp_path: Path, over: str) -> None:
    """Its trials are kept by the fingerprint of its specification."""
    file = tmp_path / "a.jsonl"
    given = [f"data.path={file}"] if "file" not in over else []
    words = ["sweep", "finetune", *given, "--over", over.format(file=file)]
    options = cli.parse(cli._parser(), words)
    seen = []
    for text in ("{}\n", "[]\n"):
        file.write_text(text)
        job, config, _, _ = runner.resolve(options)
        seen.append(fingerprint(make_spec(job, config.model_dump(mode="json"), options)))
    assert seen[0] != seen[1]
