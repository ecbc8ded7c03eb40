"""Rays through MuJoCo scenes: what they hit, what blocks them, and where on a view something may be seen.

Legend: N rays or points, M moving geoms, 8 corners of a box, 2 image coordinates (right, down), 3 xyz in
metres. Rays are float64 vectors of any length, and distances count in that length.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import Enum

import mujoco
import numpy as np

_SHOWN_GROUPS = 3
"""MuJoCo's viewers show the geom groups 0, 1 and 2, and hide the others, which are for collisions."""

_STILL_GROUP, _MOVING_GROUP, _HIDDEN_GROUP = 0, 1, 5
_BLOCK_TOLERANCE = 1e-6
_NEAR_M = 1e-3


class Geoms(Enum):
    """What a ray may hit. What is fixed to the world or to a mocap body stands still until it is placed again."""

    STILL = (_STILL_GROUP,)
    MOVING = (_MOVING_GROUP,)
    ALL = (_STILL_GROUP, _MOVING_GROUP)


@dataclass(frozen=True)
class Hits:
    """First hit of each ray: geom id or -1, distance in lengths of the ray, outward unit normal."""

    geom_N: np.ndarray
    distance_N: np.ndarray
    normal_N3: np.ndarray


class Caster:
    """Casts many rays from one point, at the geoms that stand still, at those that move, or at all of them.

    Its own copy of the model tells them apart by geom group, as a cast filters by nothing finer.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        anchor_G = model.body_weldid[model.geom_bodyid]
        moving_G = (anchor_G != 0) & (model.body_mocapid[anchor_G] < 0)
        shown_G = model.geom_group < _SHOWN_GROUPS
        self._model = copy.copy(model)
        group_G = np.where(moving_G, _MOVING_GROUP, _STILL_GROUP)
        self._model.geom_group[:] = np.where(shown_G, group_G, _HIDDEN_GROUP)
        self._groups = {geoms: _group_mask(geoms.value) for geoms in Geoms}
        self._still = np.flatnonzero(shown_G & ~moving_G)
        self._moving = np.flatnonzero(shown_G & moving_G)
        corners_83 = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
        box_M6 = model.geom_aabb[self._moving]
        self._corners_M83 = box_M6[:, None, :3] + box_M6[:, None, 3:] * corners_83

    def cast(self, data: mujoco.MjData, origin_3: np.ndarray, ray_N3: np.ndarray, geoms: Geoms) -> Hits:
        """What each ray from `origin_3` hits first."""
        normal_N3 = np.empty((len(ray_N3), 3))
        geom_N, distance_N = self._cast(data, origin_3, ray_N3, geoms, normal_N3.ravel())
        return Hits(geom_N, distance_N, normal_N3)

    def blocked(self, data: mujoco.MjData, origin_3: np.ndarray, point_N3: np.ndarray, geoms: Geoms) -> np.ndarray:
        """Whether one of the geoms stands between `origin_3` and each point, bool (N,)."""
        _, distance_N = self._cast(data, origin_3, point_N3 - origin_3, geoms, None)
        return (distance_N >= 0) & (distance_N < 1 - _BLOCK_TOLERANCE)

    def _cast(
        self,
        data: mujoco.MjData,
        origin_3: np.ndarray,
        ray_N3: np.ndarray,
        geoms: Geoms,
        normal: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        count = len(ray_N3)
        geom_N, distance_N = np.empty(count, np.int32), np.empty(count)
        if count:
            groups, reach = self._groups[geoms], mujoco.mjMAXVAL
            mujoco.mj_multiRay(
                self._model, data, origin_3, ray_N3.ravel(), groups, True, -1,
                geom_N, distance_N, normal, count, reach,
            )  # fmt: skip
        return geom_N, distance_N

    def still_poses(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
        """Positions and rotations of what stands still; when they differ, something was placed again."""
        return data.geom_xpos.take(self._still, axis=0), data.geom_xmat.take(self._still, axis=0)

    def moving_corners(self, data: mujoco.MjData) -> np.ndarray:
        """Corners in the world of a box around each moving geom, (M, 8, 3)."""
        rotation_M33 = data.geom_xmat[self._moving].reshape(-1, 3, 3)
        turned_M83 = self._corners_M83 @ rotation_M33.transpose(0, 2, 1)
        return turned_M83 + data.geom_xpos[self._moving, None]


@dataclass(frozen=True)
class View:
    """A square pinhole view that looks along -z of its rotation; `slope` is the tangent of half its angle."""

    position_3: np.ndarray
    rotation_33: np.ndarray
    slope: float

    def rays(self, side: int) -> np.ndarray:
        """Unit vectors through the centres of side x side cells, row by row from the top left, (side², 3)."""
        along = ((np.arange(side) + 0.5) / side * 2 - 1) * self.slope
        right, down = np.meshgrid(along, along)
        ray_N3 = np.stack([right, -down, -np.ones_like(right)], axis=-1).reshape(-1, 3)
        ray_N3 /= np.linalg.norm(ray_N3, axis=1, keepdims=True)
        return np.ascontiguousarray(ray_N3 @ self.rotation_33.T)

    def covered(self, corners_M83: np.ndarray, side: int) -> np.ndarray:
        """Which of side x side cells the boxes may touch, bool (side² + 1,); the last entry is always True.

        A box with a corner next to or behind the eye may be anywhere.
        """
        covered = np.zeros(side * side + 1, bool)
        covered[-1] = True
        right_N, down_N, depth_N = self._project(corners_M83.reshape(-1, 3), side)
        corner_2M8 = np.stack([right_N, down_N]).reshape(2, -1, 8)
        low_2M = np.floor(corner_2M8.min(2)).clip(0, side)
        high_2M = np.ceil(corner_2M8.max(2)).clip(0, side)
        near_M = depth_N.reshape(-1, 8).min(1) < _NEAR_M
        low_2M[:, near_M], high_2M[:, near_M] = 0, side
        grid = covered[:-1].reshape(side, side)
        for left, top, right, bottom in np.concatenate([low_2M, high_2M]).T.astype(int).tolist():
            grid[top:bottom, left:right] = True
        return covered

    def cells(self, point_N3: np.ndarray, side: int) -> np.ndarray:
        """The index in `covered` of the cell in which each point is seen; out of view, the last one."""
        right_N, down_N, depth_N = self._project(point_N3, side)
        column_N, row_N = np.floor(right_N), np.floor(down_N)
        inside_N = (column_N >= 0) & (column_N < side) & (row_N >= 0) & (row_N < side) & (depth_N > _NEAR_M)
        return np.where(inside_N, row_N * side + column_N, side * side).astype(np.intp)

    def _project(self, point_N3: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cells to the right and down from the top left corner, and metres ahead."""
        right_N, up_N, back_N = ((point_N3 - self.position_3) @ self.rotation_33).T
        scale_N = (-0.5 * side / self.slope) / np.minimum(back_N, -_NEAR_M)
        return 0.5 * side + right_N * scale_N, 0.5 * side - up_N * scale_N, -back_N


def _group_mask(groups: tuple[int, ...]) -> np.ndarray:
    return np.isin(np.arange(mujoco.mjNGROUP), groups).astype(np.uint8)
