"""Whole small files that other programs wrote, plain or gzipped, read the same way wherever one is named."""

from __future__ import annotations

import io
import zlib
from gzip import GzipFile
from pathlib import Path

from squadron.core.errors import InputError

MOST_BYTES = 256 * 2**20
"""A file that is larger once unpacked is refused: a few kilobytes of gzip can unpack to fill the memory."""


def read_content(path: str | Path) -> bytes:
    """The bytes of a file, unpacked if it is gzipped, which its first bytes say and not its name.

    Raises InputError if it cannot be read, is damaged or cut short, or larger than `MOST_BYTES`.
    """
    where = str(path)
    try:
        with open(where, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if content.startswith(b"\x1f\x8b"):
            content = GzipFile(fileobj=io.BytesIO(content)).read(MOST_BYTES + 1)
    except (EOFError, zlib.error):
        raise InputError("the gzipped file is cut short or damaged", where=where, fix="fetch it again") from None
    except (OSError, ValueError) as error:  # a name with a NUL in it is a ValueError
        cause = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read: {cause}", where=where, fix="check the path and the file") from None
    if len(content) > MOST_BYTES:
        what = f"larger than {MOST_BYTES >> 20} MB, which no such file is"
        raise InputError(what, where=where, fix="check that it is the file that was meant")
    return content


def read_text_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, without their ends: those of Windows are taken too, and a byte order mark is left
    out. Raises InputError as `read_content` does, and with the line where the text is no UTF-8."""
    content = read_content(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError("not UTF-8 text", where=f"{path}, line {line}", fix="save it as UTF-8") from None
    return [line.removesuffix("\r") for line in text.split("\n")]
