"""What a job says to the person at the terminal."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def say(markup: str) -> None:
    """Print one line of rich markup."""
    _console().print(markup, highlight=False)


def complain(markup: str) -> None:
    """Print one line of rich markup to standard error."""
    _console(stderr=True).print(markup, highlight=False)


def plain(text: str) -> str:
    """`text` with its square brackets taken literally."""
    from rich.markup import escape

    return escape(text)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table; every cell is taken literally."""
    from rich.table import Table

    grid = Table(*columns, title=title or None, title_justify="left", show_header=any(columns))
    for row in rows:
        grid.add_row(*(plain(str(cell)) for cell in row))
    _console().print(grid)


@functools.cache
def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, soft_wrap=not stream.isatty(), width=None if stream.isatty() else 120)
