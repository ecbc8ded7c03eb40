"""Fixtures of the whole suite. Ray starts once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.drivers import processes

# A busy machine is no failure: what a property takes is not what it states.
settings.register_profile("squadron", deadline=None)
settings.load_profile("squadron")

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[object]:
    """A Ray cluster of two CPUs on this machine."""
    import ray

    from squadron.core.cluster import connect

    cluster = connect(cpus=2)
    _end_log_monitor()
    yield cluster
    ray.shutdown()


def _end_log_monitor() -> None:
    """Nobody reads what it gathers, and it looks at the files of all workers there ever were ten times a second: in the
    end that is a tenth of a core."""
    for monitor in processes("log_monitor.py"):
        monitor.kill()
        monitor.wait()
