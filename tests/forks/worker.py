"""What Ray starts in place of its own `setup_worker.py`: the server's fork becomes the worker, this process stands for
it. Where the server is gone, or the worker needs a surrounding of its own, Ray's own script takes over."""

import json
import os
import socket
import sys


def main() -> None:
    words = sys.argv[1:]
    context = {}
    for word in words:
        if word.startswith("--serialized-runtime-env-context="):
            context = json.loads(word.partition("=")[2] or "{}")
    environment = dict(os.environ) | (context.get("env_vars") or {})
    plain = not context.get("command_prefix") and not context.get("override_worker_entrypoint")
    plain = plain and context.get("py_executable", sys.executable) in (None, sys.executable)
    plain = plain and environment.get("PYTHONPATH", "") == os.environ.get("SQUADRON_FORKS_PATH")
    link = socket.socket(socket.AF_UNIX)
    try:
        if not plain or any("$" in value for value in (context.get("env_vars") or {}).values()):
            raise OSError
        link.connect(os.environ["SQUADRON_FORKS"])
    except OSError:
        own = os.path.join(os.path.dirname(words[0]), "setup_worker.py")
        os.execv(sys.executable, [sys.executable, own, *words])
    asked = [word for word in words if not word.startswith(("--serialized-runtime-env-context", "--language"))]
    body = json.dumps({"words": asked, "environment": environment, "folder": os.getcwd(), "nice": os.nice(0)}).encode()
    socket.send_fds(link, [len(body).to_bytes(8, "big")], [0, 1, 2])
    link.sendall(body)
    link.recv(8)
    sys.exit((link.recv(1) or b"\1")[0])


main()
