"""What a job says to the person at the terminal."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from squadron.core.masking import mask_text

if TYPE_CHECKING:
    from rich.console import Console


def say(markup: str) -> None:
    """Print one line of rich markup. Secrets in it are masked."""
    _console().print(mask_text(markup), highlight=False)


def complain(markup: str) -> None:
    """Print one line of rich markup to standard error. Secrets in it are masked."""
    _console(stderr=True).print(mask_text(markup), highlight=False)


def plain(text: str) -> str:
    """`text` with its square brackets taken literally."""
    from rich.markup import escape

    return escape(text)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table; every cell is taken literally, but for secrets, which are masked."""
    from rich.table import Table

    grid = Table(*columns, title=title or None, title_justify="left", show_header=any(columns))
    for row in rows:
        grid.add_row(*(plain(mask_text(str(cell))) for cell in row))
    _console().print(grid)


@functools.cache
def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, soft_wrap=not stream.isatty(), width=None if stream.isatty() else 120)
