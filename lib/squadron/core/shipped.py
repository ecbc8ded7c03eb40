"""What a submitted job brings along besides its code, in files that lie next to it: the commit of the checkout that it
was sent from, and variables of the environment."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

COMMIT, ENVIRONMENT = "shipped-commit.txt", "shipped-environment.json"
_PACKAGE = Path(__file__).resolve().parents[1]


def commit() -> str:
    """The commit that this copy of the code was sent from; an empty text if it was not."""
    with contextlib.suppress(OSError):
        return (_PACKAGE / COMMIT).read_text().strip()
    return ""


def take_up_environment() -> None:
    """Set the variables that were sent along, if any were. Ray calls this in each worker before its first task."""
    with contextlib.suppress(FileNotFoundError):
        os.environ.update(json.loads((_PACKAGE / ENVIRONMENT).read_text())["variables"])
