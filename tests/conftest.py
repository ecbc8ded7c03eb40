"""Fixtures of the whole suite. Ray starts once a session."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from tests.contract.record import find_contract, write_files
from tests.drivers import processes
from tests.forks.client import let_ray_fork, start_server, stop_server

# A busy machine is no failure: what a property takes is not what it states.
settings.register_profile("squadron", deadline=None)
settings.load_profile("squadron")

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = ROOT.parent / "shared" / "data"
WITH_RAY = ("cluster", "contract", "ray", "rehearsal")
"""Folders whose tests start Ray, by a fixture or in processes of their own."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", choices=["ray", "rest"], help="tests that start Ray, or the others; both by suite.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of one part."""
    if (part := config.getoption("--part")) is None:
        return
    kept: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        by_fixture = {"forks", "ray_cluster"} & set(getattr(item, "fixturenames", ()))
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        kept[(part == "ray") == bool(by_fixture or folder in WITH_RAY)].append(item)
    items[:] = kept[True]
    config.hook.pytest_deselected(items=kept[False])


@pytest.fixture(scope="session", autouse=True)
def loud_end() -> Iterator[None]:
    """What a test starts here must not end this process: with status 0 the tests left would count as passed."""
    tests, end = os.getpid(), os._exit

    def end_loudly(status: int) -> None:
        if os.getpid() == tests:  # and not a fork of it
            traceback.print_stack(file=sys.__stderr__)
            end(70)
        end(status)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "_exit", end_loudly)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trained models are kept between runs: here, not in the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUADRON_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def forks(own_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Workers of Ray, drivers and groups are forks of a process that has imported what is large."""
    start_server(tmp_path_factory.mktemp("forks"))
    yield
    stop_server()


@pytest.fixture(scope="session")
def ray_cluster(forks: None) -> Iterator[object]:
    """A Ray cluster of two CPUs on this machine."""
    import ray

    from squadron.core.cluster import connect

    let_ray_fork()
    cluster = connect(cpus=2)
    _end_log_monitor()
    yield cluster
    ray.shutdown()


@pytest.fixture(scope="session")
def smoke_run(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`smoke_run(job)`: the finished smoke run of a job, made once for all tests. Who changes it copies it first."""
    from squadron.core.cli import main

    @cache
    def make(job: str) -> Path:
        place, contract = tmp_path_factory.mktemp(job), find_contract(job)
        (place / "files").mkdir()
        words = write_files(place / "files", contract.files, contract.words)
        assert main(["run", job, "smoke", *words, "--run", str(place / "run")]) == 0
        return place / "run"

    return make


def _end_log_monitor() -> None:
    """Nobody reads what it gathers, and it looks at the files of all workers there ever were ten times a second: in the
    end that is a tenth of a core."""
    for monitor in processes("log_monitor.py"):
        monitor.kill()
        monitor.wait()


@pytest.fixture
def fresh_stores() -> Iterator[None]:
    """A test that sets the credentials of stores: drivers keep those that they have once found, or not found."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()
