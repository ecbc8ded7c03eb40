"""Films: they play in a page, keep their frames and times, and show several homes at once."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from squadron.core.errors import InputError
from squadron.sim.film import film, media_type, tile


def moving_bar(
    count: int, height: int = 48, width: int = 64, colour: tuple[int, int, int] = (230, 120, 20)
) -> list[np.ndarray]:
    frames = []
    for step in range(count):
        image_HWC = np.full((height, width, 3), (40, 60, 90), np.uint8)
        image_HWC[:, 4 * step : 4 * step + 8] = colour
        frames.append(image_HWC)
    return frames


def test_a_film_holds_its_frames_in_order_and_in_time():
    frames = moving_bar(10)
    encoded = film(frames, fps=20, last_frame_s=1.5)
    assert media_type(encoded) in ("image/webp", "image/gif")
    with Image.open(io.BytesIO(encoded)) as played:
        assert played.n_frames == 10 and played.info["loop"] == 0
        for step, frame_HWC in enumerate(frames):
            played.seek(step)
            shown_HWC = np.asarray(played.convert("RGB")).astype(int)
            assert np.abs(shown_HWC - frame_HWC).mean() < 8
            assert played.info["duration"] == (1500 if step == 9 else 50)


def test_webp_is_used_where_it_is_built_in():
    from PIL import features

    assert (media_type(film(moving_bar(3))) == "image/webp") == bool(features.check("webp"))


def test_a_film_is_small_enough_for_a_page():
    noise = np.random.default_rng(0).integers(0, 20, (48, 64, 3), dtype=np.uint8)
    frames = [frame + noise for frame in moving_bar(12)]
    assert len(film(frames)) < sum(frame.nbytes for frame in frames) / 4


def test_films_side_by_side_keep_every_picture_and_hold_the_last():
    first, second, third = moving_bar(5), moving_bar(2, colour=(10, 200, 90)), moving_bar(3)
    tiled = tile([first, second, third], labels=["home 0", "home 1", "a label far too long for its picture"], gap=4)
    assert len(tiled) == 5 and len({frame.shape for frame in tiled}) == 1
    for step in range(5):
        for one in (first, second, third):
            assert contains(tiled[step], one[min(step, len(one) - 1)])
    assert tiled[0].shape[1] == 4 + 2 * (64 + 4), "three films take two columns"
    plain = tile([first, second, third], gap=4)
    assert tiled[0].shape[0] > plain[0].shape[0], "labels take room of their own"


def contains(sheet_HWC: np.ndarray, picture_HWC: np.ndarray) -> bool:
    height, width = picture_HWC.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(sheet_HWC, (height, width, 3))[:, :, 0]
    return bool((windows == picture_HWC).all((-1, -2, -3)).any())


def test_labels_are_written():
    blank = tile([moving_bar(1)], labels=[""])[0]
    written = tile([moving_bar(1)], labels=["home 7"])[0]
    assert blank.shape == written.shape and (blank != written).any()


@pytest.mark.parametrize("fps", [0, -1])
def test_a_film_needs_a_rate(fps):
    with pytest.raises(InputError, match="positive rate"):
        film(moving_bar(2), fps=fps)


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(InputError, match="needs frames"):
        film([])
    with pytest.raises(InputError, match="same size"):
        film([*moving_bar(1), *moving_bar(1, width=32)])
    with pytest.raises(InputError, match="at least one frame"):
        tile([moving_bar(1), []])
    with pytest.raises(InputError, match="same image size"):
        tile([moving_bar(1), moving_bar(1, width=32)])
    with pytest.raises(InputError, match="1 labels for 2 films"):
        tile([moving_bar(1), moving_bar(1)], labels=["one"])
