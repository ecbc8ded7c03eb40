"""What makes one environment differ from another: fourteen factors, drawn once and kept as plain numbers.

The factors and their ranges are those of The Colosseum (arXiv 2402.08191), which FLAME (arXiv 2503.01729)
uses to make each federated client a world of its own. Where both are silent, this file decides:

- A texture is a procedural pattern in two colours: the object's own and a shade of it.
- Colours within one role are drawn without replacement, so several receivers can be told apart.
- The masses of the spatula and the cube are The Colosseum's numbers as factors: of 0.3 kg and of 0.05 kg.
- A distractor stands still in its own area, which the task keeps clear.
- A factor that is switched off takes one constant for every environment.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.sim.manipulation.view import TEXTURES

RGB = tuple[float, float, float]
XYZ = tuple[float, float, float]
Span = tuple[float, float]
Role = Literal["manipulated", "receiver"]

TRAIN, EVAL, TEST = range(0, 400), range(400, 410), range(410, 420)
"""Environment indices of the three splits; the index is the client id."""

COLOURS: dict[str, RGB] = {
    "red": (1, 0, 0), "maroon": (0.5, 0, 0), "lime": (0, 1, 0), "green": (0, 0.5, 0), "blue": (0, 0, 1),
    "navy": (0, 0, 0.5), "yellow": (1, 1, 0), "cyan": (0, 1, 1), "magenta": (1, 0, 1), "orange": (1, 0.5, 0),
    "silver": (0.75, 0.75, 0.75), "gray": (0.5, 0.5, 0.5), "olive": (0.5, 0.5, 0), "purple": (0.5, 0, 0.5),
    "teal": (0, 0.5, 0.5), "azure": (0, 0.5, 1), "violet": (0.5, 0, 1), "rose": (1, 0, 0.5),
    "black": (0, 0, 0), "white": (1, 1, 1),
}  # fmt: skip
LIGHT_RGB: Span = (0.0, 0.5)
TABLE_RGB: Span = (0.25, 1.0)
CAMERA_POSITION_M: Span = (-0.1, 0.1)
CAMERA_EULER_RAD: Span = (-0.05, 0.05)
SHADE: Span = (0.4, 0.8)
DISTRACTOR_SIZE_M: Span = (0.02, 0.035)
CAMERAS = ("front", "left_shoulder", "right_shoulder")


@dataclass(frozen=True)
class ObjectRange:
    """How one object may vary. `size` scales its length; a span of None means that it never varies."""

    role: Role
    colour: str
    size: Span | None = None
    mass_kg: Span | None = None
    usual_mass_kg: float = 0.5


@dataclass(frozen=True)
class Variation:
    """How one task's environments vary. A distractor area is (x low, x high, y low, y high) in metres."""

    objects: dict[str, ObjectRange]
    distractor_areas: tuple[tuple[float, float, float, float], ...]
    friction: Span | None = None
    usual_friction: float = 0.8


VARIATIONS: dict[str, Variation] = {
    "close_box": Variation(
        objects={"box": ObjectRange("manipulated", "orange", size=(0.75, 1.15))},
        distractor_areas=((0.30, 0.45, -0.42, -0.35), (0.55, 0.70, -0.40, -0.35)),
    ),
    "slide_block_to_target": Variation(
        objects={
            "block": ObjectRange("manipulated", "red", mass_kg=(1.0, 15.0), usual_mass_kg=2.0),
            "target": ObjectRange("receiver", "green"),
        },
        distractor_areas=((0.22, 0.30, -0.40, -0.25), (0.22, 0.30, 0.25, 0.40)),
        friction=(0.75, 1.0),
    ),
    "insert_onto_square_peg": Variation(
        objects={
            "ring": ObjectRange("manipulated", "red", size=(1.0, 1.5), usual_mass_kg=0.1),
            "pillar": ObjectRange("receiver", "green", size=(0.85, 1.15)),
            "second_pillar": ObjectRange("receiver", "blue"),
            "third_pillar": ObjectRange("receiver", "yellow"),
        },
        distractor_areas=(
            (0.30, 0.45, -0.45, -0.36), (0.50, 0.65, -0.45, -0.36),
            (0.30, 0.45, 0.36, 0.45), (0.50, 0.65, 0.36, 0.45),
        ),
    ),
    "scoop_with_spatula": Variation(
        objects={
            "spatula": ObjectRange(
                "manipulated", "orange", size=(0.75, 1.25), mass_kg=(0.03, 0.3), usual_mass_kg=0.1
            ),
            "cube": ObjectRange(
                "receiver", "blue", size=(0.75, 1.5), mass_kg=(0.05, 0.25), usual_mass_kg=0.05
            ),
        },
        distractor_areas=((0.35, 0.60, -0.45, -0.36), (0.35, 0.60, 0.36, 0.45)),
        friction=(0.75, 1.0),
    ),
}  # fmt: skip
"""Every task and its ranges."""


class Factors(Config):
    """Which of the fourteen factors vary between environments. One that is off is constant everywhere."""

    manipulated_colour: bool = True
    manipulated_texture: bool = True
    manipulated_size: bool = True
    receiver_colour: bool = True
    receiver_texture: bool = True
    receiver_size: bool = True
    light_colour: bool = True
    table_colour: bool = True
    table_texture: bool = True
    background_texture: bool = True
    distractors: bool = True
    camera_pose: bool = True
    friction: bool = True
    mass: bool = True

    @classmethod
    def none(cls) -> Factors:
        """All factors off: every environment of a task is the same."""
        return cls(**dict.fromkeys(cls.model_fields, False))


class Surface(Config):
    """A colour, and the second colour that texture `texture` (0: none) mixes it with."""

    colour: RGB
    second_colour: RGB
    texture: int = 0


class ObjectSpec(Config):
    """One object of the task: its look, its scale and its mass."""

    surface: Surface
    size: float = 1.0
    mass_kg: float


class DistractorSpec(Config):
    """A solid that has nothing to do with the task. `size_m` is its half width; it stands on the table."""

    shape: Literal["box", "sphere", "cylinder", "capsule"]
    colour: RGB
    size_m: float
    x_m: float
    y_m: float
    yaw_rad: float


class CameraShift(Config):
    """How far a camera is from its usual pose: along the world's axes, and turned about its own x, y, z."""

    position_m: XYZ = (0.0, 0.0, 0.0)
    euler_rad: XYZ = (0.0, 0.0, 0.0)


class EnvironmentSpec(Config):
    """Everything that is fixed in one environment; its JSON rebuilds the same one bit for bit."""

    task: str
    client_id: int
    seed: int
    objects: dict[str, ObjectSpec]
    light_rgb: RGB
    table: Surface
    background: Surface
    distractors: tuple[DistractorSpec, ...]
    cameras: dict[str, CameraShift]
    friction: float


def sample_environment(task: str, client_id: int, seed: int = 0, factors: Factors | None = None) -> EnvironmentSpec:
    """Draw the environment of `client_id`: the same arguments always give the same one.

    Each factor has a random stream of its own, so switching one off leaves all others as they were.
    Raises InputError for a task that does not exist.
    """
    if task not in VARIATIONS:
        raise InputError(f"there is no task {task!r}", fix=f"choose one of {', '.join(VARIATIONS)}")
    variation, draw = VARIATIONS[task], _Draw(task, client_id, seed, factors or Factors())
    return EnvironmentSpec(
        task=task,
        client_id=client_id,
        seed=seed,
        objects=_objects(draw, variation),
        light_rgb=_rgb(draw.stream("light_colour"), LIGHT_RGB, (0.35, 0.35, 0.35)),
        table=_table(draw),
        background=_background(draw),
        distractors=_distractors(draw, variation),
        cameras=_cameras(draw),
        friction=_uniform(draw.stream("friction"), variation.friction, variation.usual_friction),
    )


class _Draw:
    """Random streams of one environment: one for each factor that is on."""

    def __init__(self, task: str, client_id: int, seed: int, factors: Factors) -> None:
        self._key = (seed, client_id, zlib.crc32(task.encode()))
        self._factors = factors

    def stream(self, factor: str) -> np.random.Generator | None:
        if not getattr(self._factors, factor):
            return None
        return np.random.default_rng((*self._key, zlib.crc32(factor.encode())))


def _uniform(rng: np.random.Generator | None, span: Span | None, usual: float) -> float:
    return usual if rng is None or span is None else float(rng.uniform(*span))


def _rgb(rng: np.random.Generator | None, span: Span, usual: RGB) -> RGB:
    return usual if rng is None else _triple(rng, span)


def _triple(rng: np.random.Generator, span: Span) -> tuple[float, float, float]:
    x, y, z = rng.uniform(*span, size=3).tolist()
    return (x, y, z)


def _surface(rng: np.random.Generator | None, colour: RGB) -> Surface:
    """`colour` with a texture drawn from `rng`, or plain."""
    shade = _uniform(rng, SHADE, 0.6)
    texture = 0 if rng is None else int(rng.integers(1, TEXTURES + 1))
    red, green, blue = colour
    return Surface(colour=colour, second_colour=(red * shade, green * shade, blue * shade), texture=texture)


def _objects(draw: _Draw, variation: Variation) -> dict[str, ObjectSpec]:
    objects: dict[str, ObjectSpec] = {}
    masses = draw.stream("mass")
    for role in ("manipulated", "receiver"):
        named = {name: item for name, item in variation.objects.items() if item.role == role}
        colours, textures = draw.stream(f"{role}_colour"), draw.stream(f"{role}_texture")
        sizes = draw.stream(f"{role}_size")
        palette = list(COLOURS) if colours is None else colours.permutation(list(COLOURS)).tolist()
        for (name, item), colour in zip(named.items(), palette, strict=False):
            objects[name] = ObjectSpec(
                surface=_surface(textures, COLOURS[item.colour if colours is None else colour]),
                size=_uniform(sizes, item.size, 1.0),
                mass_kg=_uniform(masses, item.mass_kg, item.usual_mass_kg),
            )
    return objects


def _table(draw: _Draw) -> Surface:
    return _surface(draw.stream("table_texture"), _rgb(draw.stream("table_colour"), TABLE_RGB, (0.7, 0.6, 0.5)))


def _background(draw: _Draw) -> Surface:
    rng = draw.stream("background_texture")
    return _surface(rng, _rgb(rng, TABLE_RGB, (0.75, 0.8, 0.85)))


def _distractors(draw: _Draw, variation: Variation) -> tuple[DistractorSpec, ...]:
    rng = draw.stream("distractors")
    if rng is None:
        return ()
    shapes: tuple[Literal["box", "sphere", "cylinder", "capsule"], ...] = (
        "box",
        "sphere",
        "cylinder",
        "capsule",
    )
    return tuple(
        DistractorSpec(
            shape=shapes[rng.integers(len(shapes))],
            colour=list(COLOURS.values())[rng.integers(len(COLOURS))],
            size_m=float(rng.uniform(*DISTRACTOR_SIZE_M)),
            x_m=float(rng.uniform(x_low, x_high)),
            y_m=float(rng.uniform(y_low, y_high)),
            yaw_rad=float(rng.uniform(-np.pi, np.pi)),
        )
        for x_low, x_high, y_low, y_high in variation.distractor_areas
    )


def _cameras(draw: _Draw) -> dict[str, CameraShift]:
    rng = draw.stream("camera_pose")
    if rng is None:
        return {name: CameraShift() for name in CAMERAS}
    return {
        name: CameraShift(position_m=_triple(rng, CAMERA_POSITION_M), euler_rad=_triple(rng, CAMERA_EULER_RAD))
        for name in CAMERAS
    }
