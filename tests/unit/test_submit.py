"""What is sent with a submitted job, what is refused before, and its log through connections that end."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import subprocess
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.job_submission import JobDetails

from squadron.cluster.submit import packaging
from squadron.cluster.submit.follow import Follower, exit_status
from squadron.cluster.submit.inputs import place_inputs
from squadron.cluster.submit.packaging import Package, pack_code, pack_environment, pack_job
from squadron.cluster.submit.submission import check_folder, make_entrypoint, make_name
from squadron.core.cli import main
from squadron.core.config import Config, load_config
from squadron.core.errors import ConfigError, InputError, ResourceError
from squadron.core.folder import Folder
from squadron.core.inputs import InputPath, replace_paths
from squadron.core.registry import find_config, list_configs, list_jobs, load_job
from squadron.core.yaml_text import write_yaml

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [(job, name) for job in list_jobs() for name in list_configs(job)]


class Reads(Config):
    """Settings that name inputs."""

    rows: InputPath
    model: InputPath = InputPath("some/model-of-a-hub")


def test_the_package_is_what_git_knows_of_the_code_and_nothing_else() -> None:
    package = pack_code()
    said = subprocess.run(
        ["git", "ls-files", "lib/squadron", "jobs", "configs"], cwd=ROOT, capture_output=True, text=True
    )
    tracked = [name for name in said.stdout.splitlines() if (ROOT / name).is_file()]
    assert len(package.files) == len(tracked) + 1  # and the commit
    assert {str(path.relative_to(ROOT)) for path in package.files.values() if isinstance(path, Path)} == set(tracked)
    assert {"squadron/core/cli.py", "squadron/jobs/flame.py", "squadron/configs/flame/demo.yaml"} <= set(package.files)
    assert package.size() < 2**24


def test_what_git_does_not_know_is_named_and_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = ["lib/squadron/core/a.py", "jobs/known.py", "configs/known/demo.yaml", "secrets.txt", "tests/test_a.py"]
    for name in [*files, "jobs/own.py", "lib/squadron/core/b.pyc"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    for words in (["init", "-q"], ["add", *files]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    (tmp_path / "lib/squadron/core/a.py").write_text("changed since")
    monkeypatch.setattr(packaging, "_PACKAGE", tmp_path / "lib" / "squadron")
    package = pack_code()
    assert set(package.files) == {
        "squadron/core/a.py",
        "squadron/jobs/known.py",
        "squadron/configs/known/demo.yaml",
        "squadron/shipped-commit.txt",
    }
    assert package.left_out == ("jobs/own.py",)
    content = package.files["squadron/core/a.py"]
    assert isinstance(content, Path) and content.read_text() == "changed since"
    assert pack_job("own", package.files) == ("own", {"squadron/jobs/own.py": tmp_path / "jobs/own.py"})
    assert pack_job("known", package.files) == ("known", {})


def test_the_same_files_are_the_same_package_and_contents_are_for_their_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    package = Package({"b/secret": b"x", "a.py": tmp_path / "a.py"})
    for name in ("one", "two"):
        package.write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    modes = {
        entry.filename: entry.external_attr >> 16 & 0o777 for entry in zipfile.ZipFile(tmp_path / "one").infolist()
    }
    assert modes == {"a.py": 0o644, "b/secret": 0o600}


def test_a_package_that_is_too_large_is_refused_with_its_largest_files(tmp_path: Path) -> None:
    with open(tmp_path / "weights.bin", "wb") as file:
        file.truncate(packaging.MOST_BYTES)
    Package({"weights": tmp_path / "weights.bin"}).check_size()
    with pytest.raises(ResourceError, match=r"weights\.bin: 64\.0 MiB; b: 0\.0 KiB"):
        Package({"weights": tmp_path / "weights.bin", "b": b"1"}).check_size()


def test_variables_are_sent_by_name_in_a_file_with_chance_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN", "some value")
    first, second = (next(iter(pack_environment(["GIVEN"]).values())) for _ in range(2))
    assert isinstance(first, bytes) and json.loads(first)["variables"] == {"GIVEN": "some value"}
    assert first != second, "its sum is no sum of the value alone"
    assert pack_environment([]) == {}
    with pytest.raises(ConfigError, match="NEVER_SET") as refused:
        pack_environment(["GIVEN", "NEVER_SET"])
    assert "some value" not in str(refused.value)


@pytest.mark.parametrize(("job", "name"), SHIPPED)
def test_settings_that_are_sent_are_read_as_the_ones_that_were_given(job: str, name: str, tmp_path: Path) -> None:
    kind = load_job(job).config_type
    config = load_config(kind, find_config(job, name), [])
    (tmp_path / "sent.yaml").write_text(write_yaml(config.model_dump(mode="json")))
    assert load_config(kind, tmp_path / "sent.yaml", []) == config


def test_each_input_is_shipped_shared_or_refused_by_name(tmp_path: Path) -> None:
    file, folder = tmp_path / "rows.jsonl", tmp_path / "model"
    file.write_text("{}")
    (folder / "deep").mkdir(parents=True)
    for name in ("config.json", "deep/weights.safetensors", ".hidden", "README.md"):
        (folder / name).write_text(name)
    config = Reads(rows=InputPath(str(file)), model=InputPath(str(folder)))

    with pytest.raises(InputError, match=r"would not see these inputs(.|\n)*rows: .*rows\.jsonl; model: .*model"):
        place_inputs(config, [], [], same_machine=False)
    shipped = place_inputs(config, [str(file), str(folder)], [], same_machine=False)
    assert shipped.files == {
        "inputs/0/rows.jsonl": file,
        "inputs/1/model/config.json": folder / "config.json",
        "inputs/1/model/deep/weights.safetensors": folder / "deep" / "weights.safetensors",
    }
    moved = replace_paths(config.model_dump(mode="json"), shipped.moved)
    assert moved == {"rows": "inputs/0/rows.jsonl", "model": "inputs/1/model"}
    shared = place_inputs(config, [str(file)], [str(folder)], same_machine=False)
    assert shared.moved == {str(file): "inputs/0/rows.jsonl", str(folder): str(folder)}
    here = place_inputs(config, [], [], same_machine=True)
    assert here.moved == {str(file): str(file), str(folder): str(folder)} and not here.files


def test_what_no_setting_reads_is_not_shipped_and_what_is_not_there_may_be_on_the_cluster(tmp_path: Path) -> None:
    config = Reads(rows=InputPath("s3://bucket/rows.jsonl"))
    assert place_inputs(config, [], [], same_machine=False).moved == {}
    with pytest.raises(ConfigError, match="no setting reads"):
        place_inputs(config, [str(tmp_path)], [], same_machine=False)
    absent = Reads(rows=InputPath("/far/away/rows.jsonl"))
    with pytest.raises(InputError, match=r"rows: /far/away/rows\.jsonl"):
        place_inputs(absent, [], [], same_machine=False)
    assert place_inputs(absent, [], ["/far"], same_machine=False).moved == {}


def test_a_run_folder_that_only_this_machine_has_or_that_holds_a_secret_is_refused() -> None:
    for given_, same in (("runs/x", True), ("/shared/x", False), ("s3://bucket/x", False)):
        check_folder(given_, Folder(given_), same, 3)
    with pytest.raises(ConfigError, match="the cluster has 3 of its own"):
        check_folder("runs/x", Folder("runs/x"), False, 3)
    with pytest.raises(ConfigError, match="holds a secret") as refused:
        check_folder("s3://user:pass-word-1@bucket/x", Folder("s3://user:pass-word-1@bucket/x"), False, 3)
    assert "pass-word-1" not in str(refused.value)


def test_the_command_that_the_dashboard_shows_has_no_settings_in_it() -> None:
    options = argparse.Namespace(
        profile="auto", track="none", workers=2, wait_s=9.5, rerun=["evaluate"], settings=["smoke", "a=b"]
    )
    shown = make_entrypoint(options, "flame", Folder("/shared/my runs/x"))
    assert shown == (
        "exec python -m squadron.core.cli run flame settings.yaml --run '/shared/my runs/x' --profile auto "
        "--track none --workers 2 --wait-s 9.5 --rerun evaluate"
    )


def test_a_job_has_a_name_of_its_own_that_may_stand_in_a_path() -> None:
    def named(name: str | None, *settings: str) -> str:
        return make_name(argparse.Namespace(name=name, settings=settings), "flame").rpartition("-")[0]

    assert named(None) == "flame-demo"
    assert named(None, "my/own file.yaml", "a=b") == "flame-own-file"
    assert named("../x y") == "..-x-y"
    options = argparse.Namespace(name=None, settings=["smoke"])
    assert len({make_name(options, "flame") for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["flame", "smoke"], "needs a run folder"),
        (["flame", "smoke", "homes.clinets=3", "--run", "/x"], "did you mean clients?"),
        (["flame", "smoke", "--profile", "laptp", "--run", "/x"], "did you mean laptop?"),
        (["flame", "--follow", "some-job"], "give a job, or --follow ID, or --stop ID"),
        (["flame", "smoke", "--env", "NEVER_SET_1", "--run", "/x"], "not set here: NEVER_SET_1"),
        (["--follow", "some-job", "--address", "head:6379"], "no address of a dashboard"),
    ],
)
def test_what_is_wrong_is_said_before_any_cluster_is_asked(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = [] if "--address" in words else ["--address", "http://127.0.0.1:9"]
    assert main(["submit", *words, *nobody]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_cluster_that_does_not_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "flame", "smoke", "--run", "/x", "--address", "http://127.0.0.1:9"]) == 2
    assert "no dashboard answers" in " ".join(capsys.readouterr().err.split())


class Recorded:
    """A log that is told from its beginning at each connection, in pieces, until the connection ends."""

    def __init__(self, log: str, connections: list[list[int]]) -> None:
        self.log_text, self._connections = log, iter(connections)

    async def tail(self, name: str) -> AsyncIterator[str]:
        """One connection: pieces of these lengths."""
        position = 0
        for length in next(self._connections):
            yield self.log_text[position : position + length]
            position += length

    def log(self, name: str) -> str:
        """All of it."""
        return self.log_text


@given(
    st.text(alphabet="ab\n é", max_size=60),
    st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=5),
)
def test_no_line_is_lost_or_repeated_wherever_connections_end(log: str, connections: list[list[int]]) -> None:
    output, told = io.StringIO(), Recorded(log, connections)
    follower = Follower(told, "a-job", output)  # type: ignore[arg-type]
    for _ in connections:
        asyncio.run(follower._tail())
    follower._finish(JobDetails(type="SUBMISSION", status="SUCCEEDED", entrypoint=""))
    assert output.getvalue() == log


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", -9, 137), ("FAILED", None, 1), ("STOPPED", None, 143)],
)
def test_the_exit_status_is_the_jobs(status: str, code: int | None, expected: int) -> None:
    info = JobDetails(type="SUBMISSION", status=status, entrypoint="", driver_exit_code=code)
    assert exit_status(info) == expected
