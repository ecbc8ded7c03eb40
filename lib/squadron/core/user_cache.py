"""What runs of one user share on a machine: models and vectors that need not be computed again."""

from __future__ import annotations

import os

from squadron.core.folder import Folder


def user_cache(name: str) -> Folder:
    """A folder under $SQUADRON_CACHE, or under ~/.cache/squadron."""
    home = os.path.join(os.path.expanduser("~"), ".cache", "squadron")
    return Folder(os.environ.get("SQUADRON_CACHE") or home) / name
