"""math-verify in a process of its own, which the kernel ends when an answer takes too much.

The library's own time limits are handlers of signals in Python: they fail outside of the main thread, and do not end a
power that is being computed. A process ends at any time, whatever thread asks.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading

from squadron.core.errors import WorkerError

_SECONDS = 3.0  # of processor time, so that a busy machine gives the same verdicts
_MEMORY = 2 << 30  # bytes
_PATIENCE = 120.0  # seconds until a process that says nothing is given up


class Verifier:
    """Asks whether two pieces of LaTeX mean the same, one pair at a time. Safe in any thread and after a fork."""

    _process: subprocess.Popen[str] | None

    def __init__(self) -> None:
        self._forget()
        atexit.register(self.stop)
        os.register_at_fork(after_in_child=self._forget)

    def ask(self, answer: str, reference: str) -> bool:
        """What cannot be decided within 3 s of processor time and 2 GiB counts as different.

        Raises WorkerError if the process cannot be started or is killed from outside.
        """
        with self._lock:
            verdict, code = "", None
            try:
                if self._process is None or self._process.poll() is not None:
                    self._start()
                verdict = self._exchange(json.dumps([answer, reference]) + "\n")
            finally:  # also after an interrupt: a late verdict must not be taken for that of the next answer
                if not verdict:
                    code = self.stop()
        if code == -signal.SIGKILL:
            raise WorkerError(
                f"the process that verifies answers was killed, or said nothing for {_PATIENCE:.0f} s",
                where=f"verifying {answer[:80]!r}",
                fix="look whether this machine is short of memory or overloaded",
            )
        return verdict == "1\n"

    def stop(self) -> int | None:
        """End the process, and return what it ended with."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        with process:
            return process.wait()

    def _forget(self) -> None:
        """Leave the process to its other owner, as after a fork."""
        self._lock = threading.Lock()
        self._process = None

    def _start(self) -> None:
        self.stop()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from squadron.data.verifier import serve; serve()"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # an interrupt from the keyboard is for its owner
        )
        if not self._exchange():
            raise WorkerError("math-verify could not be started", fix="see above why: pip install math-verify?")

    def _exchange(self, request: str = "") -> str:
        """Send a line and return the line that comes back; empty if the process ends or says nothing."""
        from multiprocessing.connection import wait

        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except BrokenPipeError:
            return ""
        return self._process.stdout.readline() if wait([self._process.stdout.fileno()], _PATIENCE) else ""


def serve() -> None:
    """Answer each line of input, an answer and its reference in JSON, with 1 or 0: what the process runs."""
    import logging
    import resource

    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable()
    replies, sys.stdout = sys.stdout, sys.stderr
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = _MEMORY if most == resource.RLIM_INFINITY else min(_MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, also in the midst of one long operation
    extraction = [LatexExtractionConfig(boxed_match_priority=0)]  # LaTeX alone: the other kinds take parts of a text
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)
        try:
            boxes = (rf"\boxed{{{text}}}" for text in json.loads(line))
            answer, reference = (parse(box, extraction, parsing_timeout=None) for box in boxes)
            right = verify(reference, answer, timeout_seconds=None, allow_set_relation_comp=True)
        except Exception:  # on what nobody can read the libraries raise anything, MemoryError among it
            right = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(int(right), file=replies, flush=True)
