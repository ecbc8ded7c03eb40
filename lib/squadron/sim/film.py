"""Films of an episode: short animations that play inside a web page, and several homes side by side.

Legend: T frames, H and W pixels, C RGB; uint8.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from squadron.core.errors import InputError
from squadron.core.folder import Folder

_INK, _PAPER = (40, 44, 52), (255, 255, 255)
_QUALITY = 80


def film(images_THWC: Sequence[np.ndarray], fps: float = 20.0, last_frame_s: float = 1.0) -> bytes:
    """An animation that repeats forever: WebP, or GIF where Pillow was built without WebP.

    Real time is 20 frames/s, one for each 50 ms step. The last frame stays for `last_frame_s`, so that the
    end of an episode can be seen. `media_type` names the format of the result. Raises InputError when there
    is no frame, when the frames' sizes differ, or for a rate that is not positive.
    """
    if not len(images_THWC) or fps <= 0:
        raise InputError(f"a film needs frames and a positive rate, not {len(images_THWC)} frames at {fps}/s")
    if len({np.shape(image_HWC) for image_HWC in images_THWC}) > 1:
        raise InputError("the frames of a film must all have the same size")
    frames = [Image.fromarray(np.ascontiguousarray(image_HWC)) for image_HWC in images_THWC]
    durations_ms = [round(1000 / fps)] * (len(frames) - 1) + [round(1000 * max(last_frame_s, 1 / fps))]
    options = {"save_all": True, "append_images": frames[1:], "duration": durations_ms, "loop": 0}
    out = io.BytesIO()
    if features.check("webp"):
        frames[0].save(out, format="WEBP", quality=_QUALITY, method=2, **options)
    else:
        frames[0].save(out, format="GIF", **options)
    return out.getvalue()


def store_film(folder: Folder, stem: str, data: bytes) -> str:
    """Write what `film` made into a folder; its name there, with the suffix that it has."""
    name = f"{stem}.{media_type(data).rpartition('/')[2]}"
    folder.write_bytes(name, data)
    return name


def media_type(film_bytes: bytes) -> str:
    """The MIME type of what `film` made, by its first bytes; it tells the file's suffix too."""
    return "image/gif" if film_bytes.startswith(b"GIF8") else "image/webp"


def tile(
    films: Sequence[Sequence[np.ndarray]],
    labels: Sequence[str] = (),
    columns: int | None = None,
    gap: int = 6,
) -> list[np.ndarray]:
    """Several films as one, in rows, each under its label. A film that ends early holds its last frame.

    All images must be as large as each other. `columns` is by default that of the smallest square that holds
    them all. Raises InputError for empty films, for different sizes, and for labels that do not match.
    """
    if not films or not all(len(one) for one in films):
        raise InputError("nothing to put side by side: each film needs at least one frame")
    if len({np.shape(image_HWC) for one in films for image_HWC in one}) > 1:
        raise InputError("films side by side must all have the same image size")
    if labels and len(labels) != len(films):
        raise InputError(f"{len(labels)} labels for {len(films)} films")
    height, width = np.shape(films[0][0])[:2]
    columns = columns or int(np.ceil(np.sqrt(len(films))))
    strip = _label_height(width) if labels else 0
    corners = [
        (gap + (height + strip + gap) * (number // columns), gap + (width + gap) * (number % columns))
        for number in range(len(films))
    ]
    sheet_HWC = _sheet(corners, labels, height + strip, width, gap)
    frames = []
    for step in range(max(len(one) for one in films)):
        frame_HWC = sheet_HWC.copy()
        for (top, left), one in zip(corners, films, strict=True):
            shown_HWC = one[min(step, len(one) - 1)]
            frame_HWC[top + strip : top + strip + height, left : left + width] = shown_HWC
        frames.append(frame_HWC)
    return frames


def _sheet(corners: list[tuple[int, int]], labels: Sequence[str], height: int, width: int, gap: int) -> np.ndarray:
    """White paper for all the films with their labels on it."""
    size = (max(left for _, left in corners) + width + gap, max(top for top, _ in corners) + height + gap)
    paper = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(paper)
    font = ImageFont.load_default(_label_height(width) * 0.7)
    for (top, left), label in zip(corners, labels, strict=False):
        while label and pen.textlength(label, font) > width:
            label = label[:-2] + "…" if len(label) > 2 else ""
        pen.text((left, top), label, fill=_INK, font=font)
    return np.asarray(paper)


def _label_height(width: int) -> int:
    return max(14, min(26, width // 8))
