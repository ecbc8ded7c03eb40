"""A camera that casts rays with MuJoCo and shades them with NumPy: no OpenGL, no display.

`render` states what an image is. `Renderer` makes the same image, byte for byte, many times faster: what
stands still is cast and shaded once, both in the key lamp's light and in its shadow. Each frame then casts
rays only where something moving may be seen, or may throw a shadow.

Legend: P pixels in reading order, N rays or points, S pixels that show a still surface in the key lamp's
light, M moving geoms, 8 corners, 3 xyz or RGB, HWC image. Arrays for MuJoCo are float64 (N, 3), those for
shading float32 (3, N).
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from squadron.sim.manipulation.raycast import Caster, Geoms, Hits, View
from squadron.sim.manipulation.shading import Shader, encode
from squadron.sim.manipulation.view import Camera, Look

_LAMP_DISTANCE_M = 1000.0
"""A lamp is infinitely far away; from here, rays across a scene of 2 m are parallel to 0.1 degrees."""

_LAMP_HALF_WIDTH_M = 1.2
_LAMP_CELLS = 96
"""The key lamp's view tells where shadows may fall, by cells of 2.5 cm; beyond it they may fall anywhere."""


def render(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    look: Look,
    camera: Camera,
    size: int,
    shadows: bool = True,
    samples: int = 1,
) -> np.ndarray:
    """The image of a scene whose geoms `mj_forward` or `mj_step` has placed: uint8 (size, size, 3).

    Only the first lamp throws shadows. Each pixel is the mean of `samples` x `samples` rays. For more than
    one image of a scene, `Renderer` gives the same ones faster.
    """
    caster, shader, eye = Caster(model), Shader(model, look), _eye(camera)
    ray_P3 = eye.rays(size * samples)
    hits = caster.cast(data, eye.position_3, ray_P3, Geoms.ALL)
    pixel_N = np.flatnonzero(hits.geom_N >= 0)
    surface = _surface(hits, pixel_N, ray_P3, eye)
    plain_3N, key_3N = surface.shade(shader, data)
    if shadows and look.lights:
        lamp_3 = _lamp(look).position_3
        key_3N *= ~caster.blocked(data, lamp_3, surface.point_N3, Geoms.ALL)
    image_P3 = encode(shader.background(_columns(ray_P3)))
    image_P3[pixel_N] = encode(plain_3N + key_3N)
    return _average(image_P3, size, samples)


class Renderer:
    """Makes the images of `render` for one scene, look and camera, over and over.

    The model must not change; poses may. When a fixed or mocap body is placed again, that one frame is slow.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        look: Look,
        camera: Camera,
        size: int,
        shadows: bool = True,
        samples: int = 1,
    ) -> None:
        self._caster, self._shader, self._eye = Caster(model), Shader(model, look), _eye(camera)
        self._size, self._samples, self._side = size, samples, size * samples
        self._ray_P3 = self._eye.rays(self._side)
        self._lamp = _lamp(look) if shadows and look.lights else None
        self._backdrop: _Backdrop | None = None

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """The image of the scene as it stands: uint8 (size, size, 3)."""
        if self._backdrop is None or not self._backdrop.stands(self._caster.still_poses(data)):
            self._backdrop = self._draw_backdrop(data)
        image_P3 = self._backdrop.image_P3.copy()
        corners_M83 = self._caster.moving_corners(data)
        if self._lamp:
            pixel_N = self._backdrop_in_shadow(data, corners_M83, self._backdrop, self._lamp)
            image_P3[pixel_N] = self._backdrop.shadow_image_P3[pixel_N]
        pixel_N, surface = self._see_moving(data, corners_M83, self._backdrop)
        if len(pixel_N):
            plain_3N, key_3N = surface.shade(self._shader, data)
            self._cast_shadows(data, key_3N, surface.point_N3, Geoms.ALL)
            image_P3[pixel_N] = encode(plain_3N + key_3N)
        return _average(image_P3, self._size, self._samples)

    def _draw_backdrop(self, data: mujoco.MjData) -> _Backdrop:
        hits = self._caster.cast(data, self._eye.position_3, self._ray_P3, Geoms.STILL)
        pixel_N = np.flatnonzero(hits.geom_N >= 0)
        surface = _surface(hits, pixel_N, self._ray_P3, self._eye)
        plain_3N, key_3N = surface.shade(self._shader, data)
        self._cast_shadows(data, key_3N, surface.point_N3, Geoms.STILL)
        image_P3 = encode(self._shader.background(_columns(self._ray_P3)))
        shadow_image_P3 = image_P3.copy()
        image_P3[pixel_N], shadow_image_P3[pixel_N] = encode(plain_3N + key_3N), encode(plain_3N)
        lit = np.flatnonzero(key_3N.any(0))
        point_S3 = surface.point_N3[lit]
        return _Backdrop(
            poses=self._caster.still_poses(data),
            image_P3=image_P3,
            shadow_image_P3=shadow_image_P3,
            distance_P=np.where(hits.geom_N >= 0, hits.distance_N, np.inf),
            pixel_S=pixel_N[lit],
            point_S3=point_S3,
            lamp_cell_S=self._lamp.cells(point_S3, _LAMP_CELLS) if self._lamp else lit,
        )

    def _backdrop_in_shadow(
        self, data: mujoco.MjData, corners_M83: np.ndarray, backdrop: _Backdrop, lamp: View
    ) -> np.ndarray:
        """The pixels where something moving takes the key light from what stands still."""
        maybe_N = np.flatnonzero(lamp.covered(corners_M83, _LAMP_CELLS)[backdrop.lamp_cell_S])
        point_N3 = backdrop.point_S3.take(maybe_N, axis=0)
        blocked_N = self._caster.blocked(data, lamp.position_3, point_N3, Geoms.MOVING)
        return backdrop.pixel_S[maybe_N[blocked_N]]

    def _see_moving(
        self, data: mujoco.MjData, corners_M83: np.ndarray, backdrop: _Backdrop
    ) -> tuple[np.ndarray, _Surface]:
        """The pixels that show something moving, and what they show."""
        maybe_N = np.flatnonzero(self._eye.covered(corners_M83, self._side)[:-1])
        ray_N3 = self._ray_P3.take(maybe_N, axis=0)
        hits = self._caster.cast(data, self._eye.position_3, ray_N3, Geoms.MOVING)
        in_front_N = (hits.geom_N >= 0) & (hits.distance_N < backdrop.distance_P.take(maybe_N))
        front = np.flatnonzero(in_front_N)
        return maybe_N[front], _surface(hits, front, ray_N3, self._eye)

    def _cast_shadows(self, data: mujoco.MjData, key_3N: np.ndarray, point_N3: np.ndarray, geoms: Geoms) -> None:
        """Take the key light from those points that it cannot reach past `geoms`."""
        if self._lamp:
            lit = np.flatnonzero(key_3N.any(0))
            key_3N[:, lit[self._caster.blocked(data, self._lamp.position_3, point_N3[lit], geoms)]] = 0


@dataclass(frozen=True)
class _Backdrop:
    """All that stands still, drawn once: in the key light, and as it looks where something shades it."""

    poses: tuple[np.ndarray, np.ndarray]
    image_P3: np.ndarray
    shadow_image_P3: np.ndarray
    distance_P: np.ndarray
    pixel_S: np.ndarray
    point_S3: np.ndarray
    lamp_cell_S: np.ndarray

    def stands(self, poses: tuple[np.ndarray, np.ndarray]) -> bool:
        return all(np.array_equal(was, now) for was, now in zip(self.poses, poses, strict=True))


@dataclass(frozen=True)
class _Surface:
    """Points on geoms, with their normals and the unit rays from the eye that met them."""

    geom_N: np.ndarray
    point_N3: np.ndarray
    normal_N3: np.ndarray
    ray_N3: np.ndarray

    def shade(self, shader: Shader, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
        return shader.shade(data, self.geom_N, _columns(self.point_N3), _columns(self.normal_N3), _columns(self.ray_N3))


def _surface(hits: Hits, which: np.ndarray, ray_N3: np.ndarray, eye: View) -> _Surface:
    ray_N3 = ray_N3.take(which, axis=0)
    point_N3 = eye.position_3 + hits.distance_N.take(which)[:, None] * ray_N3
    return _Surface(hits.geom_N.take(which), point_N3, hits.normal_N3.take(which, axis=0), ray_N3)


def _eye(camera: Camera) -> View:
    slope = float(np.tan(np.radians(camera.fovy_deg) / 2))
    return View(np.asarray(camera.position_3, np.float64), np.asarray(camera.rotation_33, np.float64), slope)


def _lamp(look: Look) -> View:
    """The key lamp's view of the scene around the origin."""
    back_3 = -np.asarray(look.lights[0].direction_3, np.float64)
    back_3 = back_3 / np.linalg.norm(back_3)
    right_3 = np.cross(np.eye(3)[np.abs(back_3).argmin()], back_3)
    right_3 /= np.linalg.norm(right_3)
    rotation_33 = np.stack([right_3, np.cross(back_3, right_3), back_3], axis=1)
    return View(_LAMP_DISTANCE_M * back_3, rotation_33, _LAMP_HALF_WIDTH_M / _LAMP_DISTANCE_M)


def _columns(vector_N3: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(vector_N3.T, np.float32)


def _average(image_P3: np.ndarray, size: int, samples: int) -> np.ndarray:
    if samples == 1:
        return image_P3.reshape(size, size, 3)
    blocks = image_P3.reshape(size, samples, size, samples, 3).astype(np.uint32)
    return ((blocks.sum((1, 3)) + samples * samples // 2) // (samples * samples)).astype(np.uint8)
