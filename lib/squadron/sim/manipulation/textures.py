"""Procedural textures: patterns over a plane, evaluated only where a ray has hit.

A texture id from 1 to view.TEXTURES names a pattern and a variant of it (how large, how turned); 0 is plain.
A pattern takes coordinates in units of its own period and gives a mix in [0, 1] between a geom's two colours.
Every operation is exact float32 or integer arithmetic on single elements, so a point has the same colour
whichever other points are evaluated with it.

Legend: N points, 2 coordinates on the plane, 3 xyz. Arrays keep their coordinates first, so that each is
contiguous.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from squadron.sim.manipulation.view import TEXTURES


def mix_at(texture_N: np.ndarray, position_2N: np.ndarray) -> np.ndarray:
    """Share of the second colour, float32 in [0, 1], at each point.

    `texture_N`: ids from 1. `position_2N`: float32, in units of the geom's texture length.
    """
    cos_N, sin_N = _COSINES.take(texture_N), _SINES.take(texture_N)
    x_N, y_N = position_2N
    u_N, v_N = cos_N * x_N - sin_N * y_N, sin_N * x_N + cos_N * y_N
    pattern_N = (texture_N - 1) % len(PATTERNS)
    mix_N = np.empty(len(texture_N), np.float32)
    for pattern in np.flatnonzero(np.bincount(pattern_N)):
        here = np.flatnonzero(pattern_N == pattern)
        mix_N[here] = PATTERNS[pattern](u_N[here], v_N[here])
    return mix_N


def unfold(point_3N: np.ndarray, normal_3N: np.ndarray) -> np.ndarray:
    """The two coordinates of each point along the face it lies on: those the normal points least along."""
    x_N, y_N, z_N = point_3N
    steep_3N = np.abs(normal_3N)
    facing_x_N = (steep_3N[0] > steep_3N[1]) & (steep_3N[0] > steep_3N[2])
    facing_z_N = ~facing_x_N & (steep_3N[2] >= steep_3N[1])
    return np.stack([np.where(facing_x_N, y_N, x_N), np.where(facing_z_N, y_N, z_N)])


def _fraction(x_N: np.ndarray) -> np.ndarray:
    return x_N - np.floor(x_N)


def _triangle(x_N: np.ndarray) -> np.ndarray:
    return np.abs(2 * _fraction(x_N) - 1)


def _checker(u_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
    return ((np.floor(u_N) + np.floor(v_N)) % 2).astype(np.float32)


def _stripes(u_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
    return (_fraction(u_N) < 0.5).astype(np.float32)


def _dots(u_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
    return ((_fraction(u_N) - 0.5) ** 2 + (_fraction(v_N) - 0.5) ** 2 < 0.1).astype(np.float32)


def _clouds(u_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
    return np.clip(2.4 * (0.65 * _noise(u_N, v_N) + 0.35 * _noise(2.3 * u_N, 2.3 * v_N)) - 0.7, 0, 1)


def _gradient(u_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
    return _triangle(u_N / 3)


def _bricks(u_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
    row_N = np.floor(2 * v_N)
    mortar_N = (_fraction(u_N + row_N / 2) < 0.1) | (_fraction(2 * v_N) < 0.2)
    return mortar_N.astype(np.float32)


def _grid(u_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
    return (np.minimum(_fraction(u_N), _fraction(v_N)) < 0.25).astype(np.float32)


def _rings(u_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
    return (_fraction(np.sqrt(u_N * u_N + v_N * v_N)) < 0.5).astype(np.float32)


def _zigzag(u_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
    return (_fraction(v_N + _triangle(u_N) / 2) < 0.5).astype(np.float32)


def _mosaic(u_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
    return _random(np.floor(2 * u_N).astype(np.int32), np.floor(2 * v_N).astype(np.int32))


PATTERNS: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
    _checker,
    _stripes,
    _dots,
    _clouds,
    _gradient,
    _bricks,
    _grid,
    _rings,
    _zigzag,
    _mosaic,
)


# The golden ratio's multiples spread the variants of a pattern evenly, however many there are.
_VARIANTS = np.maximum(np.arange(TEXTURES + 1) - 1, 0) // len(PATTERNS)
_PERIODS = 0.75 + 0.75 * (_VARIANTS * 0.6180339887 % 1)
_ANGLES = np.pi * (_VARIANTS * 0.3819660113 % 1)
_COSINES = (np.cos(_ANGLES) / _PERIODS).astype(np.float32)
_SINES = (np.sin(_ANGLES) / _PERIODS).astype(np.float32)


def _noise(u_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
    """Value noise: random numbers on the integer lattice, smoothly interpolated."""
    left_N, low_N = np.floor(u_N), np.floor(v_N)
    s_N, t_N = u_N - left_N, v_N - low_N
    s_N, t_N = s_N * s_N * (3 - 2 * s_N), t_N * t_N * (3 - 2 * t_N)
    i_N, j_N = left_N.astype(np.int32), low_N.astype(np.int32)
    lower_N = _random(i_N, j_N) * (1 - s_N) + _random(i_N + 1, j_N) * s_N
    upper_N = _random(i_N, j_N + 1) * (1 - s_N) + _random(i_N + 1, j_N + 1) * s_N
    return lower_N * (1 - t_N) + upper_N * t_N


def _random(i_N: np.ndarray, j_N: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each cell of the integer lattice, always the same one."""
    bits_N = i_N.astype(np.uint32) * np.uint32(374761393) + j_N.astype(np.uint32) * np.uint32(668265263)
    bits_N = (bits_N ^ (bits_N >> np.uint32(13))) * np.uint32(1274126177)
    return ((bits_N >> np.uint32(16)) & np.uint32(0xFFFF)).astype(np.float32) / np.float32(65536)
