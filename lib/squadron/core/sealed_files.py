"""Files of bytes that an unfinished stage leaves for itself, such as the state of a training.

A seal of eight hex digits stands at the end: a stage resumes from what was written or not at all. What later stages
read is an `Artifact`, and has no such end.
"""

from __future__ import annotations

from squadron.core.errors import InputError
from squadron.core.folder import RESTORE, Folder
from squadron.core.seals import seal_bytes, unseal_bytes


def write_sealed(folder: Folder, name: str, data: bytes) -> None:
    """Write bytes with a seal, whole or not at all."""
    folder.write_bytes(name, seal_bytes(data))


def read_sealed(folder: Folder, name: str, fix: str = RESTORE) -> bytes:
    """The bytes that `write_sealed` was given. Raises InputError if the file is not there or is damaged."""
    data = folder.read_bytes(name)
    try:
        return unseal_bytes(data)
    except ValueError as error:
        raise InputError(f"the file is damaged: {error}", where=folder.file(name), fix=fix) from None
