"""A process that has imported what is large, and becomes by a fork whatever script it is asked to run.

python server.py SOCKET PARENT
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import threading
from typing import Any

IMPORTS = (
    "deepspeed", "flwr.serverapp.strategy", "mujoco", "pandas", "peft", "pyarrow.parquet",
    "sentence_transformers", "threadpoolctl", "torch.distributed",
)  # fmt: skip
_DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


def preload() -> None:
    """Import what workers import. Not Ray: a fork of a process that has, stops as it becomes a worker."""
    os.environ |= {
        "OMP_NUM_THREADS": "1",  # as Ray has it; OpenMP reads it once
        "GOMP_SPINCOUNT": "10000",  # as `core/host.py` has it
        "DS_ACCELERATOR": "cpu",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",  # else Arrow's allocator starts one
    }
    for name in IMPORTS:
        importlib.import_module(name)
    from squadron.train.library_setup import quiet_libraries

    quiet_libraries()
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    assert AutoModelForCausalLM and AutoTokenizer and LlamaForCausalLM
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, "a fork has none of its parent's other threads, and may wait for them"


def serve(place: str) -> None:
    """Answer each connection by a fork that runs the script which it asks for."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{place}.new")
    listener.listen(128)
    os.rename(f"{place}.new", place)  # whoever sees it can connect
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # leave no zombies
    while True:
        link, _ = listener.accept()
        files, asked = receive(link)
        if os.fork() == 0:
            listener.close()
            become(link, files, asked)
        link.close()
        for file in files:
            os.close(file)


def receive(link: socket.socket) -> tuple[list[int], dict[str, Any]]:
    """Standard input, output and error of the new process, and its words, environment and folder."""
    head, files, _, _ = socket.recv_fds(link, 8, 3)
    body = b""
    while len(body) < int.from_bytes(head, "big"):
        body += link.recv(2**20)
    return files, json.loads(body)


def become(link: socket.socket, files: list[int], asked: dict[str, Any]) -> None:
    """Run the script in this process, as if Python had been started with it. Does not return."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for target, file in enumerate(files):
            os.dup2(file, target)
            os.close(file)
        os.nice(max(0, asked.get("nice", 0) - os.nice(0)))
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["folder"])
        sys.argv = asked["words"]
        sys.path[0] = os.path.dirname(sys.argv[0])
        import numpy as np
        import torch
        from threadpoolctl import threadpool_limits

        np.random.seed()  # a new process draws numbers of its own
        if "ray" not in sys.path[0]:  # Ray's workers have a thread each; others, as many as they are told, or find
            threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
            torch.set_num_threads(threads)
            threadpool_limits(threads)  # numpy's too: the last digits of a product depend on how many share it
        link.sendall(f"{os.getpid():08d}".encode())
        threading.Thread(target=_end_with, args=[link], daemon=True).start()
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        link.sendall(bytes([code & 255]))
        os._exit(code)


def _end_with(link: socket.socket) -> None:
    """Whoever asked for this process stands for it: if that one is killed, so is this."""
    try:
        if not link.recv(1):
            os.kill(os.getpid(), signal.SIGKILL)
    except OSError:
        pass


if __name__ == "__main__":
    place, parent = sys.argv[1], int(sys.argv[2])
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() == parent:  # else it has ended before this process could ask to end with it
        preload()
        serve(place)
