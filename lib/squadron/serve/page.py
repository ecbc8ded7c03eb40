"""The page at `/`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from squadron.serve.service import Service, pages, paths

_PAGE = Path(__file__).with_name("page.html")


def render(services: Sequence[Service]) -> str:
    """A page that names what is served and lets one try it. It holds all that it needs."""
    listed = [
        {
            "path": path,
            "summary": several[0][1].summary,
            "models": [model for service, _ in several for model in service.models],
            "example": several[0][1].example,
        }
        for path, several in paths(services).items()
    ]
    data = json.dumps(
        {"routes": listed, "pages": [[path, page.summary] for path, page in pages(services).items()]}
    ).replace("<", "\\u003c")
    return _PAGE.read_text(encoding="utf-8").replace("__DATA__", data)
