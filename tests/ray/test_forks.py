"""Processes by fork, which tests start in place of new ones, compute what new ones do."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.drivers import start, start_quickly, wait_for_all

SCRIPT = """
import hashlib
import numpy as np
import torch
from threadpoolctl import threadpool_info
draw = np.random.default_rng(0)
first, second = (draw.standard_normal((count, 384), np.float32) for count in (60, 200))
print(torch.get_num_threads(), {one["num_threads"] for one in threadpool_info()})
print(hashlib.sha256(first @ second.T).hexdigest(), torch.get_num_threads())
print(hashlib.sha256((torch.from_numpy(first) @ torch.from_numpy(second).T).numpy()).hexdigest())
"""


def test_a_fork_has_the_threads_of_a_new_process_and_its_last_digits(ray_cluster: object, tmp_path: Path) -> None:
    script = tmp_path / "products.py"
    script.write_text(SCRIPT)
    said = []
    for begin in (start, start_quickly):
        with tempfile.TemporaryFile() as out:
            assert wait_for_all([begin([str(script)], dict(os.environ), out.fileno())], 60)
            out.seek(0)
            said.append(out.read())
    assert said[0] == said[1] != b""
