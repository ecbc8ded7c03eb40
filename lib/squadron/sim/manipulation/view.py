"""What a camera needs to know about a scene: where it stands, which lamps shine, how each geom looks.

Legend: G geoms of the MuJoCo model, 3 xyz in metres (world frame) or RGB in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TEXTURES = 213
"""Number of procedural textures. A texture id is 0 (plain colour) or 1..TEXTURES."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels and a square image.

    `rotation_33` has the camera's axes as columns, in world coordinates: x to the right of the image,
    y up, z backwards. It looks along -z, which is MuJoCo's and OpenGL's convention.
    """

    position_3: np.ndarray
    rotation_33: np.ndarray
    fovy_deg: float


@dataclass(frozen=True)
class Light:
    """A directional lamp, infinitely far away: `direction_3` is the unit vector the light travels along."""

    direction_3: np.ndarray
    colour_3: np.ndarray


@dataclass(frozen=True)
class Look:
    """How the scene is shaded.

    A geom whose texture id is not 0 mixes `colours_G3` and `second_colours_G3` by its pattern, in the geom's
    own frame. `ambient_3` is added to the light of all lamps. A ray that hits nothing takes the background:
    it looks like the geoms, with a pattern over the ray's direction.
    """

    colours_G3: np.ndarray
    second_colours_G3: np.ndarray
    textures_G: np.ndarray
    ambient_3: np.ndarray
    lights: tuple[Light, ...]
    background_colour_3: np.ndarray
    background_second_colour_3: np.ndarray
    background_texture: int
