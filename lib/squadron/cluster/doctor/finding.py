"""What a check has found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

from squadron.core.masking import mask_text

Outcome = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: what was seen, and for what is not well the next thing to do."""

    check: str
    outcome: Outcome
    text: str
    fix: str = ""
    node: str = ""  # its address; empty: this machine, or all of them together

    def on(self, node: str) -> Finding:
        """The same, of this node."""
        return replace(self, node=node)

    def as_data(self) -> dict[str, str]:
        """For JSON. Secrets are masked."""
        return {name: mask_text(value) for name, value in asdict(self).items()}


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", text)


def warning(check: str, text: str, fix: str) -> Finding:
    """Jobs run, but slowly, or not safely, or not for long."""
    return Finding(check, "warning", text, fix)


def failed(check: str, text: str, fix: str) -> Finding:
    """Jobs that need this do not run."""
    return Finding(check, "failed", text, fix)
