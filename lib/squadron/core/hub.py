"""Which commit of a model or data set a name of the Hugging Face hub stands for.

The hub is asked, once in a process. Where it cannot be, its cache on this machine tells what would be read; then what
an earlier start of the same run was told.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Literal

Kind = Literal["models", "datasets"]
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_S = 5.0
_unreachable: list[str] = []
"""Addresses that did not answer in this process, and are asked no more."""
commits: dict[str, str] = {}
"""What is known, by kind, name and revision, in this process or from an earlier start."""
settled: dict[str, str] = {}
"""What the process that gave this one its work was told: it is not asked for again."""


def find_commit(kind: Kind, name: str, revision: str | None = None) -> str | None:
    """The commit that a name and a revision (by default the main branch) stand for; None where nobody can tell."""
    if revision and _COMMIT.fullmatch(revision):
        return revision
    key = f"{kind}/{name}@{revision or 'main'}"
    if key in settled:
        return settled[key]
    told = ask_hub(kind, name, revision) or _cached(kind, name, revision or "main")
    if told is not None:
        commits[key] = told
    return commits.get(key)


@functools.cache
def ask_hub(kind: Kind, name: str, revision: str | None = None) -> str | None:
    """What the hub itself says; None where it cannot be reached, has no such thing, or does not show it."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or not _NAME.fullmatch(name) or constants.ENDPOINT in _unreachable:
        return None
    at = f"/revision/{urllib.parse.quote(revision, safe='')}" if revision else ""
    request = urllib.request.Request(f"{constants.ENDPOINT}/api/{kind}/{name}{at}")
    if token := os.environ.get("HF_TOKEN") or _read(constants.HF_TOKEN_PATH):
        request.add_header("Authorization", f"Bearer {token.strip()}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return _commit(json.load(answer).get("sha"))
    except urllib.error.HTTPError:
        return None
    except OSError:
        _unreachable.append(constants.ENDPOINT)
        return None
    except (HTTPException, ValueError, AttributeError):  # an answer that is none of the hub's
        return None


def _cached(kind: Kind, name: str, revision: str) -> str | None:
    """What the cache of this machine holds."""
    from huggingface_hub import constants

    if not _NAME.fullmatch(name):
        return None
    folder = f"{kind}--{name.replace('/', '--')}"
    return _commit(_read(os.path.join(constants.HF_HUB_CACHE, folder, "refs", revision)))


def _commit(told: object) -> str | None:
    return told.strip() if isinstance(told, str) and _COMMIT.fullmatch(told.strip()) else None


def _read(path: str) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        return Path(path).read_text(encoding="utf-8")
    return None
