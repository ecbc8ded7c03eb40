"""Whatever requests a store loses: what was written is there whole, once, or an error says that it is not."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squadron.core import lease, remote_store
from squadron.core.cli import main
from squadron.core.digests import digest
from squadron.core.errors import InputError, ResourceError
from squadron.core.folder import Folder
from squadron.core.lease import LEASES, Lease
from squadron.core.line_log import GrowingLog, LineWriter, append_row, find_rows, line_files, read_rows
from squadron.core.marker import check_files, read_marker
from tests.finished import one_line
from tests.object_store import BUCKET, ObjectStore, object_store
from tests.unit.test_ending import JOB

TRIES = len(remote_store.PAUSES_S) + 1
LOSSES = st.lists(st.sampled_from(["", "", "before", "after", "cut"]), max_size=40)


class LossyFileSystem(MemoryFileSystem):
    """Files in memory, by requests that are lost as `losses` says: before they are served, or after, or in part."""

    protocol = "lossy"
    losses: ClassVar[list[str]] = []

    def _request(self, serve: Any) -> Any:
        lost = self.losses.pop(0) if self.losses else ""
        if lost == "before":
            raise ConnectionResetError("the connection was closed")
        answer = serve()
        if lost == "after":
            raise TimeoutError("no answer came")
        return answer[: len(answer) // 2] if lost == "cut" and isinstance(answer, bytes) else answer

    def pipe_file(self, path: str, value: bytes, **more: Any) -> None:
        self._request(lambda: super(LossyFileSystem, self).pipe_file(path, value, **more))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> Any:
        cut = start is not None  # a whole answer that is cut short is seen by every client of HTTP
        found = self._request(lambda: super(LossyFileSystem, self).cat_file(path, start, end, **more))
        whole = super().cat_file(path, start, end, **more)
        if not cut and found != whole:
            raise ConnectionResetError("the answer was cut short")
        return found

    def exists(self, path: str, **more: Any) -> bool:
        """What the other methods look up in here themselves, which is no request."""
        return self._strip_protocol(path) in self.store

    def info(self, path: str, **more: Any) -> Any:
        return self._request(lambda: super(LossyFileSystem, self).info(path, **more))

    def ls(self, path: str, detail: bool = True, **more: Any) -> Any:
        return self._request(lambda: super(LossyFileSystem, self).ls(path, detail=detail, **more))

    def rm(self, path: str, **more: Any) -> None:
        self._request(lambda: super(LossyFileSystem, self).rm(path, **more))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("lossy", LossyFileSystem, clobber=True)
    monkeypatch.setattr(remote_store, "PAUSES_S", (0.0,) * (TRIES - 1))
    LossyFileSystem.losses.clear()


def lossy() -> Folder:
    return Folder(f"lossy://{uuid.uuid4().hex}/run")


def bounded(losses: list[str]) -> list[str]:
    """So that no request is lost more often than it is tried: each is served at the latest after a few losses."""
    return [lost if n % 3 else "" for n, lost in enumerate(losses)]


@given(losses=LOSSES, values=st.lists(st.binary(max_size=40), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_few_losses_leave_is_what_no_loss_leaves(losses: list[str], values: list[bytes]) -> None:
    folder, sure = lossy(), Folder(f"memory://{uuid.uuid4().hex}/run")
    LossyFileSystem.losses[:] = bounded(losses)
    for one in (folder, sure):
        for number, value in enumerate(values):
            one.write_bytes(f"deep/{number}.bin", value)
            append_row(one, "log.jsonl", {"n": number, "size": len(value)})
        one.write_bytes("gone.bin", b"x")
        one.remove("gone.bin")
        one.write_json("done.json", {"count": len(values)})
    assert folder.walk() == sure.walk()
    for number, value in enumerate(values):
        name = f"deep/{number}.bin"
        assert folder.read_bytes(name) == value and digest(folder, name) == digest(sure, name)
        with folder.open(name) as stream:
            assert stream.read(3) + stream.read() == value
    assert read_rows(folder, "log.jsonl") == read_rows(sure, "log.jsonl")
    assert folder.read_json("done.json") == {"count": len(values)} and not folder.exists("gone.bin")


@given(losses=LOSSES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_is_created_by_one_of_all_who_try(losses: list[str]) -> None:
    folder = lossy()
    LossyFileSystem.losses[:] = bounded(losses)
    made = [folder.create_bytes("once", str(number).encode()) for number in range(3)]
    assert made == [True, False, False]
    assert folder.read_bytes("once") == b"0"


@given(before=st.integers(0, 6), lost=st.sampled_from(["before", "after"]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_store_that_stays_away_is_told_and_no_marker_is_there_without_its_files(before: int, lost: str) -> None:
    folder = lossy()
    LossyFileSystem.losses[:] = [""] * before + [lost] * 100
    with pytest.raises(ResourceError, match="the store cannot be used") as told:
        for number in range(7):
            folder.write_bytes(f"{number}.bin", b"x")
        folder.write_json("done.json", {})
    LossyFileSystem.losses.clear()
    assert "same command again" in told.value.fix and str(folder) in told.value.where
    assert not folder.exists("done.json") and len(folder.ls()) <= before + 1


@given(losses=LOSSES, count=st.integers(1, 30))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_come_once_and_in_order(losses: list[str], count: int) -> None:
    folder = lossy()
    LossyFileSystem.losses[:] = bounded(losses)
    with LineWriter(folder, "rows.jsonl") as writer:
        for number in range(count):
            writer.write_line(b'{"n": %d}' % number)
    rows = [row["n"] for name in line_files(folder, "rows") for row in find_rows(folder, name)]
    assert rows == list(range(count))


@given(losses=LOSSES, flushes=st.lists(st.booleans(), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_log_that_grows_is_whole_at_each_flush(losses: list[str], flushes: list[bool]) -> None:
    folder = lossy()
    LossyFileSystem.losses[:] = bounded(losses)
    log = GrowingLog(folder, "log.jsonl")
    for number, flush in enumerate(flushes):
        log.append_row({"n": number})
        if flush:
            log.flush()
            assert [row["n"] for row in read_rows(folder, "log.jsonl")] == list(range(number + 1))
    log.flush()
    assert len(read_rows(folder, "log.jsonl")) == len(flushes)


def test_what_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_store, "PAUSES_S", (3600.0,))
    folder = lossy()
    assert not folder.exists("a") and folder.ls() == [] and folder.walk() == []
    folder.remove("a")
    with pytest.raises(InputError, match="file not found"):
        folder.read_bytes("a")
    with pytest.raises(FileNotFoundError):
        folder.open("a")


@pytest.fixture
def quick_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    monkeypatch.setattr(lease, "STALE_S", 0.6)


@pytest.mark.usefixtures("quick_leases")
def test_a_folder_is_held_by_one_and_given_on() -> None:
    folder = lossy()
    first = Lease(folder)
    with pytest.raises(ResourceError, match=r"another process is running in this folder: process \d+ on \S+ since 20"):
        Lease(folder)
    first.check()
    first.close()
    second = Lease(folder)
    second.check()
    assert len((folder / LEASES).ls()) == 1
    second.close()


@pytest.mark.usefixtures("quick_leases")
def test_of_many_who_come_at_once_one_has_the_folder() -> None:
    folder, held, refused = lossy(), [], []

    def come() -> None:
        try:
            held.append(Lease(folder))
        except ResourceError as error:
            refused.append(error)

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 7
    held[0].close()


@pytest.mark.usefixtures("quick_leases")
def test_what_stands_still_is_taken_over_and_its_holder_learns_of_it() -> None:
    folder = lossy()
    lost = Lease(folder)
    lost._ended.set()  # it beats no more, as if its machine were cut off
    lost._thread.join()
    taken = Lease(folder)
    with pytest.raises(ResourceError, match="another took over: process"):
        lost.check()
    lost.close()
    taken.check()
    taken.close()


@pytest.mark.usefixtures("quick_leases")
def test_clocks_that_differ_by_days_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lossy()
    monkeypatch.setattr(lease, "_now", lambda: "2001-01-01T00:00:00+00:00")
    first = Lease(folder)
    monkeypatch.setattr(lease, "_now", lambda: "2099-01-01T00:00:00+00:00")
    with pytest.raises(ResourceError, match="since 2001"):
        Lease(folder)
    first.close()


@pytest.mark.usefixtures("quick_leases")
@pytest.mark.parametrize("served", [0, 2, 9, 16, 24, 35])
def test_a_command_whose_store_goes_away_says_so_and_goes_on_when_it_is_back(
    served: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tried.py").write_text(JOB)
    run = lossy()
    words = ["run", str(tmp_path / "tried.py"), f"mark={tmp_path}/mark", "lines=5", "--track", "none", "--run", run.url]
    LossyFileSystem.losses[:] = [""] * served + ["before"] * 10_000
    assert main(words) == 2
    told = one_line(capsys)
    assert "the store cannot be used" in told and "same command again" in told, told
    LossyFileSystem.losses.clear()
    for folder in [run / "stages" / name for name in stages(run)]:
        if folder.exists("done.json"):
            check_files(folder, read_marker(folder))  # with all that it marks
    assert main(words) == 0
    (stage,) = stages(run)
    assert (run / "stages" / stage).read_json("done.json")["output"] == {"lines": 5}
    assert [row["step"] for row in read_rows(run / "stages" / stage, "metrics.jsonl")][-5:] == list(range(5))


def stages(run: Folder) -> list[str]:
    return (run / "stages").ls()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("store"), share=0.1, seed=3) as found:
        yield found


@pytest.mark.usefixtures("fresh_stores")
def test_a_real_server_that_loses_a_tenth_of_all_requests(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    folder = Folder(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    for number in range(8):
        folder.write_json(f"deep/{number:02d}.json", {"n": number})
        folder.append_line("log.jsonl", f'{{"n": {number}}}')
    assert folder.read_lines("log.jsonl") == [{"n": number} for number in range(8)]
    assert (folder / "deep").ls() == [f"{number:02d}.json" for number in range(8)]
    large = bytes(range(256)) * 2**15
    (tmp_path / "large").write_bytes(large)
    folder.put("large", str(tmp_path / "large"))
    with folder.open("large") as stream:
        assert stream.read() == large
    assert [folder.create_bytes("once", name) for name in (b"a", b"b")] == [True, False]
    Lease(folder).close()
    Lease(folder).close()
    folder.remove("deep")
    assert folder.ls() == [LEASES, "large", "log.jsonl", "once"]
    assert len(store.lost()) > 2
    with pytest.raises(InputError, match="no such bucket"):
        Folder("s3://another/run").write_bytes("a", b"")
