"""What a disk refuses is told in a sentence with its place and what to do, and ends a command with status 2."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from squadron.core import remote_store
from squadron.core.cli import main
from squadron.core.disk_errors import explain_disk_error, explaining_disk_errors
from squadron.core.errors import InputError, ResourceError
from squadron.core.folder import Folder
from squadron.core.row_worker import RowJob, answer_batch
from squadron.core.tracking import trackers
from tests.drivers import LIB
from tests.finished import one_line
from tests.unit.test_ending import JOB

TOLD = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
    errno.EFBIG: "larger than this process may write",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EROFS: "read-only",
    errno.ENAMETOOLONG: "too long",
    errno.ELOOP: "leads back to itself",
    errno.EIO: "does not answer as it should",
    errno.EMFILE: "too many files are open",
}


@pytest.fixture
def job(tmp_path: Path) -> str:
    (tmp_path / "tried.py").write_text(JOB)
    return str(tmp_path / "tried.py")


@pytest.mark.parametrize("code", TOLD, ids=errno.errorcode.__getitem__)
def test_every_refusal_of_the_system_has_its_sentence_place_and_fix(code: int) -> None:
    for error in (OSError(code, os.strerror(code)), RuntimeError(f"I/O error (os error {code})")):
        with pytest.raises((ResourceError, InputError), match=TOLD[code]) as told, explaining_disk_errors("/runs/x"):
            raise error
        assert told.value.where == "/runs/x" and told.value.fix
    named = explain_disk_error(OSError(code, os.strerror(code), "/named"))
    assert named is not None and named.where == "/named"


def test_errors_of_another_kind_pass() -> None:
    for error in (ValueError("x"), FileNotFoundError(errno.ENOENT, "x"), KeyError("os error")):
        assert explain_disk_error(error) is None
        with pytest.raises(type(error)), explaining_disk_errors("/runs/x"):
            raise error


def block_lock(run: Path) -> None:
    (run / ".lock").mkdir(parents=True)


def block_run(run: Path) -> None:
    run.write_text("")


def block_stages(run: Path) -> None:
    run.mkdir()
    (run / "stages").write_text("")


def dangle(run: Path) -> None:
    run.symlink_to(run.with_name("nowhere"))


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (block_lock, "a folder stands where a file should be"),
        (block_run, "a file stands where a folder should be"),
        (block_stages, "a file stands where a folder should be"),
        (dangle, "a link leads nowhere"),
    ],
)
def test_what_stands_in_the_way_is_named(
    block: object, said: str, job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(block)
    run = tmp_path / "run"
    block(run)
    assert main(["run", job, f"mark={tmp_path}/mark", "lines=5", "--run", str(run)]) == 2
    told = one_line(capsys)
    assert said in told and str(run) in told and "fix:" in told, told


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("/".join(["a" * 200] * 30), "too long"),
        ("nosuch://bucket/run", "no driver for this URL"),
        ("s3://bucket/run", "the store cannot be used"),
        ("http://127.0.0.1:9/run", "the store cannot be used"),
    ],
)
@pytest.mark.usefixtures("fresh_stores")
def test_a_place_that_cannot_be_reached_is_told(
    place: str, said: str, job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote_store, "PAUSES_S", ())
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # whatever this machine may be, it has no credentials
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert main(["run", job, f"mark={tmp_path}/mark", "lines=5", "--run", place]) == 2
    told = one_line(capsys)
    assert said in told and "fix:" in told, told


def test_a_run_that_may_write_no_more_says_so_whoever_writes(job: str, tmp_path: Path) -> None:
    words = ["run", job, f"mark={tmp_path}/mark", "lines=5000", "--run", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "squadron.core.cli", *words, "--track", "tensorboard,wandb"],
        env={**os.environ, "PYTHONPATH": str(LIB)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert "larger than this process may write" in done.stderr and "ulimit -f" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert "finished work is kept" in " ".join(done.stderr.split())


def test_a_full_disk_under_the_tracker_is_the_runs_to_tell(tmp_path: Path) -> None:
    tracker = trackers(["tensorboard"], "run/stage", Folder(tmp_path), {})
    (events,) = tmp_path.glob("tensorboard/*")
    with open("/dev/full", "wb") as full:
        writer = next(number for number in range(256) if _leads_to(number, events))
        os.dup2(full.fileno(), writer)
    tracker.log(1, {"loss": 1.0})
    with pytest.raises(ResourceError, match="the disk is full"):
        tracker.close()


def _leads_to(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def test_a_full_disk_is_no_rows_fault(tmp_path: Path) -> None:
    def fill(row: dict[str, object]) -> dict[str, object]:
        with open("/dev/full", "wb", buffering=0) as stream:
            stream.write(b"x")
        return row

    job = RowJob(fill, {}, Folder(tmp_path), "id", 60.0)
    assert "the disk is full" in answer_batch({"name": "s-0", "rows": b'[{"id": "a"}]'}, job)["stop"]
