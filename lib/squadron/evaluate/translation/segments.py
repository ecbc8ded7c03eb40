"""What translations are measured on."""

from __future__ import annotations

from typing import NamedTuple


class Segment(NamedTuple):
    """A text, its translation by a system, and a person's where there is one. Languages are codes of ISO 639-1; `rm` is
    Romansh."""

    id: str
    source: str
    translation: str
    reference: str | None
    source_language: str
    target_language: str
