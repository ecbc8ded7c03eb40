"""Texts with blanks, such as prompts: `{name}` is filled in where the name is known, and all other braces are text."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches

_BLANK = re.compile(r"\{(\w+)\}")
_ALIKE = 0.8


def fill_in(text: str, **values: object) -> str:
    """The text with the value of each `{name}` that has one.

    All in one go, so that a value which holds `{name}` itself is left as it is.
    """
    return _BLANK.sub(lambda blank: str(values.get(blank[1], blank[0])), text)


def check_blanks(text: str, needed: Collection[str], known: Collection[str] = ()) -> str:
    """The text, if it has all blanks that are `needed`.

    Raises ValueError if it lacks one, or has something in braces that is nearly one of these or of those `known`.
    """
    found = set(_BLANK.findall(text))
    for name in sorted(found.difference(needed, known)):
        if near := get_close_matches(name.lower(), [*needed, *known], 1, _ALIKE):
            raise ValueError(
                f"{{{name}}} is nothing to fill in; write {{{near[0]}}}, or put a space before the closing brace"
            )
    if missing := [name for name in needed if name not in found]:
        raise ValueError(f"needs {' and '.join(f'{{{name}}}' for name in missing)}")
    return text
