"""Errors that speak to the user: what was wrong, where, and what to do.

The command line prints these without a traceback; anything else is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from squadron.core.masking import mask_text


class SquadronError(Exception):
    """A failure whose cause the user can see and fix.

    `what` says what was wrong, `where` names the file, setting, row or worker, and `fix` the next thing to do. Secrets
    in them are masked here, since errors are printed, logged, kept with failed rows and sent to clients.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = mask_text(what), mask_text(where), mask_text(fix)
        super().__init__(self.what, self.where, self.fix)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.fix)


class ConfigError(SquadronError):
    """A setting is misspelt, of the wrong type, out of range, or contradicts another."""


class InputError(SquadronError):
    """A file, table or row that the job was given cannot be used."""


class ResourceError(SquadronError):
    """The machine or cluster lacks what was asked for: CPUs, GPUs, memory, disk."""


class WorkerError(SquadronError):
    """A worker process died, overran its deadline, or raised."""


def suggest(name: str, known: Iterable[str]) -> str:
    """The sentence 'did you mean …?' for a misspelt `name`, or the list of `known` names if none is near."""
    known = sorted(known)
    close = get_close_matches(name, known, n=2, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(known)}" if known else "none is known here"


def _rebuild(kind: type[SquadronError], what: str, where: str, fix: str) -> SquadronError:
    return kind(what, where=where, fix=fix)
