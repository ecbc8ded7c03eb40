"""The colour of points on surfaces: two-coloured textures, lamps, a soft sky light and a small highlight.

Legend: G geoms of the model, N points, 3 xyz or RGB. Arrays over points keep their coordinates first.
All arithmetic is float32 and element by element, so a point's colour never depends on its neighbours.
"""

from __future__ import annotations

import mujoco
import numpy as np

from squadron.sim.manipulation.textures import mix_at, unfold
from squadron.sim.manipulation.view import Light, Look

_TEXTURE_LENGTH_M = (0.03, 0.14)
_PLANE_TEXTURE_LENGTH_M = 0.3
_BACKGROUND_TEXTURE_LENGTH = 0.25
_KEY_SHARE, _FILL_SHARE = 1.6, 0.7
"""The first lamp counts for more than the others, so that its shadow stands out; the sum of three is kept."""
_BLACK = np.float32(0.015)
_HIGHLIGHT = np.float32(0.25)
_SKY_SHARE = np.float32(0.25)


class Shader:
    """The look of one scene, laid out for arithmetic. The first lamp is the key: it throws shadows."""

    def __init__(self, model: mujoco.MjModel, look: Look) -> None:
        self._colours_3G = _linear(look.colours_G3)
        self._steps_3G = _linear(look.second_colours_G3) - self._colours_3G
        self._textures_G = np.asarray(look.textures_G, np.int32)
        self._frequency_G = 1 / _texture_lengths(model)
        self._look = look
        self._ambient_31 = np.asarray(look.ambient_3, np.float32)[:, None]
        self._key = [_lamp(light, _KEY_SHARE) for light in look.lights[:1]]
        self._fill = [_lamp(light, _FILL_SHARE) for light in look.lights[1:]]

    def shade(
        self,
        data: mujoco.MjData,
        geom_N: np.ndarray,
        point_3N: np.ndarray,
        normal_3N: np.ndarray,
        ray_3N: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Linear colour of each point without the key light, and what the key light adds where it shines.

        `ray_3N` are the unit vectors from the eye to the points.
        """
        albedo_3N = self._albedo(data, geom_N, point_3N, normal_3N)
        sky_N = 1 + _SKY_SHARE * (normal_3N[2] - 1)
        light_3N = self._ambient_31 * sky_N
        for towards_3, colour_31 in self._fill:
            light_3N += colour_31 * np.maximum(_dot(towards_3, normal_3N), 0)
        key_3N = np.zeros_like(albedo_3N)
        for towards_3, colour_31 in self._key:
            facing_N = np.maximum(_dot(towards_3, normal_3N), 0)
            key_3N = colour_31 * (albedo_3N * facing_N + _highlight(towards_3, normal_3N, ray_3N, facing_N))
        return albedo_3N * light_3N, key_3N

    def background(self, ray_3N: np.ndarray) -> np.ndarray:
        """Linear colour of rays that hit nothing: a distant cube, in ambient light and half the lamps'."""
        look = self._look
        reach_N = np.abs(ray_3N).max(0)
        position_2N = unfold(ray_3N / reach_N, ray_3N) / np.float32(_BACKGROUND_TEXTURE_LENGTH)
        lamps_31 = sum((colour_31 for _, colour_31 in self._key + self._fill), np.zeros((3, 1), np.float32))
        light_31 = self._ambient_31 + np.float32(0.5) * lamps_31
        first_31 = _linear(look.background_colour_3[None])
        second_31 = _linear(look.background_second_colour_3[None])
        if not look.background_texture:
            return np.tile(light_31 * first_31, ray_3N.shape[1])
        texture_N = np.full(ray_3N.shape[1], look.background_texture, np.int32)
        return light_31 * (first_31 + (second_31 - first_31) * mix_at(texture_N, position_2N))

    def _albedo(
        self, data: mujoco.MjData, geom_N: np.ndarray, point_3N: np.ndarray, normal_3N: np.ndarray
    ) -> np.ndarray:
        albedo_3N = self._colours_3G.take(geom_N, axis=1)
        texture_N = self._textures_G.take(geom_N)
        patterned = np.flatnonzero(texture_N)
        if len(patterned):
            geom_T, point_3T, normal_3T = geom_N[patterned], point_3N[:, patterned], normal_3N[:, patterned]
            rotation_33T = data.geom_xmat.astype(np.float32).T.take(geom_T, axis=1).reshape(3, 3, -1)
            centre_3T = data.geom_xpos.astype(np.float32).T.take(geom_T, axis=1)
            local_3T = _into_frame(rotation_33T, point_3T - centre_3T)
            face_2T = unfold(local_3T, _into_frame(rotation_33T, normal_3T))
            mix_T = mix_at(texture_N[patterned], face_2T * self._frequency_G.take(geom_T))
            albedo_3N[:, patterned] += self._steps_3G.take(geom_T, axis=1) * mix_T
        return albedo_3N


def encode(linear_3N: np.ndarray) -> np.ndarray:
    """Linear colours as uint8 pixels (N, 3): bright light is rolled off, then a gamma of 2."""
    encoded_3N = np.float32(0.6) * linear_3N
    encoded_3N += 1
    np.divide(linear_3N, encoded_3N, out=encoded_3N)
    encoded_3N *= np.float32(1.3)
    np.sqrt(encoded_3N, out=encoded_3N)
    encoded_3N *= 255
    encoded_3N += np.float32(0.5)
    return np.ascontiguousarray(np.minimum(encoded_3N, 255).astype(np.uint8).T)


def _lamp(light: Light, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vector towards the lamp (3,), and its colour (3, 1)."""
    towards_3 = -np.asarray(light.direction_3, np.float64)
    colour_3 = share * np.asarray(light.colour_3, np.float64)
    return (towards_3 / np.linalg.norm(towards_3)).astype(np.float32), colour_3.astype(np.float32)[:, None]


def _highlight(towards_3: np.ndarray, normal_3N: np.ndarray, ray_3N: np.ndarray, facing_N: np.ndarray) -> np.ndarray:
    """Blinn and Phong's highlight with exponent 16, on the lit side only."""
    half_3N = towards_3[:, None] - ray_3N
    cosine_N = _dot_each(half_3N, normal_3N) / np.sqrt(np.maximum(_dot_each(half_3N, half_3N), 1e-12))
    for _ in range(4):
        cosine_N *= cosine_N
    return _HIGHLIGHT * cosine_N * (facing_N > 0)


def _texture_lengths(model: mujoco.MjModel) -> np.ndarray:
    """Period of each geom's texture in metres: by its size, so that small objects show a pattern too."""
    length_G = np.clip(0.6 * model.geom_rbound, *_TEXTURE_LENGTH_M)
    endless_G = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    return np.where(endless_G, _PLANE_TEXTURE_LENGTH_M, length_G).astype(np.float32)


def _linear(colours_G3: np.ndarray) -> np.ndarray:
    """What each colour reflects, (3, G). Black reflects a little too, so that its shape is seen."""
    squared_G3 = np.asarray(colours_G3, np.float32) ** 2
    return np.ascontiguousarray((_BLACK + (1 - _BLACK) * squared_G3).T, np.float32)


def _dot(vector_3: np.ndarray, vectors_3N: np.ndarray) -> np.ndarray:
    return vector_3[0] * vectors_3N[0] + vector_3[1] * vectors_3N[1] + vector_3[2] * vectors_3N[2]


def _dot_each(first_3N: np.ndarray, second_3N: np.ndarray) -> np.ndarray:
    product_3N = first_3N * second_3N
    return product_3N[0] + product_3N[1] + product_3N[2]


def _into_frame(rotation_33N: np.ndarray, vector_3N: np.ndarray) -> np.ndarray:
    """World vectors in each point's own frame, whose axes are the columns of its rotation."""
    product_33N = rotation_33N * vector_3N[:, None]
    return product_33N[0] + product_33N[1] + product_33N[2]
