"""The ray-casting camera: known geometry, shadows, what changes a picture, and the fast path's equality."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.sim.manipulation.camera import Renderer, render
from squadron.sim.manipulation.env import ManipulationEnv
from squadron.sim.manipulation.raycast import Caster, Geoms, View
from squadron.sim.manipulation.spec import sample_environment
from squadron.sim.manipulation.tasks import TASKS
from squadron.sim.manipulation.textures import mix_at
from squadron.sim.manipulation.view import TEXTURES, Camera, Light, Look

SIZE = 64
SCENE = """
<mujoco>
  <compiler angle="degree"/>
  <worldbody>
    <geom name="table" type="box" pos=".4 0 -.05" size=".5 .6 .05"/>
    <geom name="wall" type="box" pos="-.6 0 .5" size=".02 .8 .5"/>
    <geom name="post" type="cylinder" pos=".1 -.4 .15" size=".05 .15"/>
    <geom name="hidden" type="sphere" pos=".4 0 .5" size=".3" group="3"/>
    <body name="stand" mocap="true" pos=".5 .35 .06"><geom name="stand" type="box" size=".05 .05 .06"/></body>
    <body name="ball" pos=".4 0 .12"><freejoint/><geom name="ball" type="sphere" size=".08"/></body>
    <body name="block" pos=".6 -.25 .07"><freejoint/><geom name="block" type="box" size=".09 .05 .04"/></body>
    <body name="stick" pos=".3 .25 .2">
      <freejoint/>
      <geom name="stick" type="capsule" size=".03 .12"/>
      <geom name="cap" type="cylinder" pos="0 0 .15" size=".05 .02"/>
      <body name="arm" pos="0 0 .17">
        <joint axis="0 1 0"/>
        <geom type="capsule" fromto="0 0 0 .3 0 .1" size=".02"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""
MOVING = ("ball", "block", "stick")


@pytest.fixture
def scene() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def look_at(position: tuple[float, float, float], target: tuple[float, float, float], fovy: float = 45.0) -> Camera:
    back_3 = np.subtract(position, target)
    back_3 = back_3 / np.linalg.norm(back_3)
    right_3 = np.cross([0.0, 0.0, 1.0], back_3)
    right_3 /= np.linalg.norm(right_3)
    rotation_33 = np.column_stack([right_3, np.cross(back_3, right_3), back_3])
    return Camera(position_3=np.array(position, float), rotation_33=rotation_33, fovy_deg=fovy)


CAMERA = look_at((1.5, 0.1, 1.0), (0.35, 0.0, 0.1))


def look_of(model: mujoco.MjModel, seed: int = 0, textured: bool = True) -> Look:
    rng = np.random.default_rng(seed)
    directions = np.array([[-0.4, 0.3, -1.0], [-0.3, -0.8, -0.8], [0.7, 0.4, -0.8]])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Look(
        colours_G3=rng.uniform(0.2, 1, (model.ngeom, 3)),
        second_colours_G3=rng.uniform(0.2, 1, (model.ngeom, 3)),
        textures_G=rng.integers(0, TEXTURES + 1, model.ngeom) if textured else np.zeros(model.ngeom, int),
        ambient_3=np.full(3, 0.4),
        lights=tuple(Light(direction, np.full(3, 0.3)) for direction in directions),
        background_colour_3=np.array([0.6, 0.7, 0.9]),
        background_second_colour_3=np.array([0.4, 0.5, 0.7]),
        background_texture=int(rng.integers(1, TEXTURES + 1)) if textured else 0,
    )


def scatter(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
    """Put everything that moves anywhere, in any attitude."""
    for name in MOVING:
        place_3, quat_4 = rng.uniform([-0.3, -0.6, 0.0], [1.2, 0.6, 0.8]), rng.normal(size=4)
        data.joint(model.body(name).jntadr[0]).qpos = [*place_3, *(quat_4 / np.linalg.norm(quat_4))]
    data.joint(model.njnt - 1).qpos = rng.uniform(-2, 2)
    mujoco.mj_forward(model, data)


def hits_of(model: mujoco.MjModel, data: mujoco.MjData, camera: Camera, size: int) -> np.ndarray:
    view = View(camera.position_3, camera.rotation_33, float(np.tan(np.radians(camera.fovy_deg) / 2)))
    hits = Caster(model).cast(data, camera.position_3, view.rays(size), Geoms.ALL)
    return hits.geom_N.reshape(size, size)


def test_equal_states_give_equal_images(scene):
    model, data = scene
    first = render(model, data, look_of(model), CAMERA, SIZE)
    assert first.shape == (SIZE, SIZE, 3) and first.dtype == np.uint8
    twin = mujoco.MjData(model)
    mujoco.mj_forward(model, twin)
    np.testing.assert_array_equal(render(model, twin, look_of(model), CAMERA, SIZE), first)


def test_a_sphere_is_seen_at_the_pixels_that_its_projection_says():
    centre_3, radius = np.array([0.1, 0.2, -3.0]), 0.4
    model = mujoco.MjModel.from_xml_string(
        f'<mujoco><worldbody><geom type="sphere" pos="{" ".join(map(str, centre_3))}" size="{radius}"/>'
        "</worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    size, slope = 200, np.tan(np.radians(25))
    camera = Camera(np.zeros(3), np.eye(3), 50.0)
    row, column = np.mgrid[:size, :size] + 0.5
    x, y = (column / (size / 2) - 1) * slope, (1 - row / (size / 2)) * slope
    ray = np.stack([x, y, -np.ones_like(x)], -1) / np.sqrt(x**2 + y**2 + 1)[..., None]
    seen = np.linalg.norm(np.cross(ray, centre_3), axis=-1) < radius
    assert 500 < seen.sum() < size * size / 2
    np.testing.assert_array_equal(hits_of(model, data, camera, size) == 0, seen)
    image = render(model, data, replace(look_of(model, textured=False), colours_G3=np.zeros((1, 3))), camera, size)
    background = image[0, 0]
    np.testing.assert_array_equal((image != background).any(-1), seen)
    rows, columns = np.nonzero(seen)
    assert rows.mean() < size / 2 - 5 and columns.mean() > size / 2 + 2, "up is up and right is right"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_hits_equal_single_rays_one_by_one(seed):
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    rng = np.random.default_rng(seed)
    scatter(model, data, rng)
    camera = look_at(tuple(rng.uniform([0.3, -1, 0.3], [1.6, 1, 1.6])), (0.35, 0.0, 0.1), rng.uniform(30, 90))
    view = View(camera.position_3, camera.rotation_33, float(np.tan(np.radians(camera.fovy_deg) / 2)))
    ray_N3 = view.rays(24)
    hits = Caster(model).cast(data, camera.position_3, ray_N3, Geoms.ALL)
    groups, geom, normal_3 = np.array([1, 1, 1, 0, 0, 0], np.uint8), np.zeros(1, np.int32), np.zeros(3)
    for number, ray_3 in enumerate(ray_N3):
        distance = mujoco.mj_ray(model, data, camera.position_3, ray_3, groups, True, -1, geom, normal_3)
        assert hits.geom_N[number] == geom[0]
        assert hits.distance_N[number] == pytest.approx(distance, abs=1e-12)
        if geom[0] >= 0:
            np.testing.assert_allclose(hits.normal_N3[number], normal_3, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.sampled_from([(33, 1), (64, 1), (32, 2)]))
def test_the_fast_path_equals_the_plain_one(seed, shadows, resolution):
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    size, samples = resolution
    rng = np.random.default_rng(seed)
    look = look_of(model, seed)
    camera = look_at(tuple(rng.uniform([0.3, -1, 0.2], [1.6, 1, 1.6])), (0.35, 0.0, 0.1), rng.uniform(30, 90))
    renderer = Renderer(model, look, camera, size, shadows, samples)
    for step in range(5):
        if step == 2:
            data.mocap_pos[0] += [0.0, -0.2, 0.01]
        if step == 3:
            model.geom("post").pos += [0.1, 0.1, 0.0]
        scatter(model, data, rng)
        expected = render(model, data, look, camera, size, shadows, samples)
        image = renderer.render(data)
        np.testing.assert_array_equal(image, expected)
        assert image.flags.c_contiguous and image.flags.writeable


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_fast_path_equals_the_plain_one_in_every_task(task):
    env = ManipulationEnv(sample_environment(task, client_id=3, seed=1), image_size=0)
    world, rng = env.scene, np.random.default_rng(0)
    camera = world.cameras["front"]
    renderer = Renderer(world.model, world.look, camera, SIZE)
    for episode in range(2):
        env.reset(episode)
        for _ in range(4):
            for _ in range(5):
                env.step(np.append(rng.uniform(-1, 1, 7), 0.0))
            expected = render(world.model, world.data, world.look, camera, SIZE)
            np.testing.assert_array_equal(renderer.render(world.data), expected)


def test_images_handed_out_stay_as_they_were(scene):
    model, data = scene
    renderer = Renderer(model, look_of(model), CAMERA, SIZE)
    first = renderer.render(data)
    kept = first.copy()
    scatter(model, data, np.random.default_rng(1))
    second = renderer.render(data)
    second[:] = 0
    np.testing.assert_array_equal(first, kept)
    assert renderer.render(data).any()


def test_rendering_leaves_the_simulation_as_it_was(scene):
    model, data = scene
    groups, state = model.geom_group.copy(), data.qpos.copy()
    Renderer(model, look_of(model), CAMERA, SIZE).render(data)
    np.testing.assert_array_equal(model.geom_group, groups)
    np.testing.assert_array_equal(data.qpos, state)


def changed(array: np.ndarray, index: object, value: object) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    "change",
    [
        *("first lamp", "second lamp", "third lamp", "lamp direction", "ambient", "background", "camera"),
        *("object colour", "table colour", "texture", "second colour"),
    ],
)
def test_each_variation_shows_in_the_image(scene, change):
    model, data = scene
    ball, table = model.geom("ball").id, model.geom("table").id
    look = look_of(model, textured=False)
    look = replace(look, textures_G=changed(look.textures_G, ball, 1))
    violet_3 = np.array([0.5, 0.1, 0.3])
    key, *fill = look.lights
    camera = CAMERA
    varied = {
        "first lamp": replace(look, lights=(replace(key, colour_3=violet_3), *fill)),
        "second lamp": replace(look, lights=(key, replace(fill[0], colour_3=violet_3), fill[1])),
        "third lamp": replace(look, lights=(key, fill[0], replace(fill[1], colour_3=violet_3))),
        "lamp direction": replace(look, lights=(replace(key, direction_3=fill[0].direction_3), *fill)),
        "object colour": replace(look, colours_G3=changed(look.colours_G3, ball, [0.0, 1.0, 0.0])),
        "table colour": replace(look, colours_G3=changed(look.colours_G3, table, [0.0, 1.0, 0.0])),
        "texture": replace(look, textures_G=changed(look.textures_G, ball, 2)),
        "second colour": replace(look, second_colours_G3=changed(look.second_colours_G3, ball, [0.0, 0.0, 0.0])),
        "ambient": replace(look, ambient_3=np.full(3, 0.2)),
        "background": replace(look, background_colour_3=np.array([1.0, 0.0, 0.0])),
    }.get(change, look)
    if change == "camera":
        camera = replace(CAMERA, position_3=np.add(CAMERA.position_3, [0.0, 0.05, 0.0]))
    before = render(model, data, look, CAMERA, SIZE).astype(int)
    after = render(model, data, varied, camera, SIZE).astype(int)
    differs = (np.abs(after - before) > 8).any(-1)
    assert differs.sum() > 20, "the change can be seen in 64 x 64 pixels"
    if "object" in change or change in ("texture", "second colour"):
        others = hits_of(model, data, CAMERA, SIZE) != ball
        np.testing.assert_array_equal(after[others], before[others])


def test_a_shadow_is_darker_and_nothing_else_is(scene):
    model, data = scene
    look = look_of(model)
    with_shadows = render(model, data, look, CAMERA, SIZE).astype(int)
    without = render(model, data, look, CAMERA, SIZE, shadows=False).astype(int)
    assert (with_shadows <= without).all()
    shaded = (with_shadows < without).any(-1)
    assert 50 < shaded.sum() < SIZE * SIZE / 3
    assert (with_shadows[shaded].sum(-1) < 0.95 * without[shaded].sum(-1)).mean() > 0.5


def test_a_shadow_falls_where_the_lamp_says(scene):
    """A ball over the table throws its shadow along the light: seen from above, its place is known."""
    model, data = scene
    for name in ("block", "stick"):
        data.joint(model.body(name).jntadr[0]).qpos[:3] = [0, 0, -5]
    data.joint(model.body("ball").jntadr[0]).qpos[:3] = [0.4, 0.0, 0.3]
    mujoco.mj_forward(model, data)
    direction_3 = np.array([0.4, -0.6, -1.0]) / np.linalg.norm([0.4, -0.6, -1.0])
    look = replace(look_of(model, textured=False), lights=(Light(direction_3, np.full(3, 0.5)),))
    camera = Camera(np.array([0.4, 0.0, 2.0]), np.eye(3), 40.0)
    size = 128
    lit = render(model, data, look, camera, size, shadows=False).astype(int)
    dark = (lit - render(model, data, look, camera, size).astype(int)).sum(-1) > 30
    on_table = hits_of(model, data, camera, size) == model.geom("table").id
    x_m = 0.4 + ((np.arange(size) + 0.5) / size * 2 - 1) * np.tan(np.radians(20)) * 2.0
    y_m = -(x_m - 0.4)
    expected_xy = [0.4 + 0.4 * 0.3, -0.6 * 0.3]
    near = (np.abs(x_m - expected_xy[0]) < 0.15)[None, :] & (np.abs(y_m - expected_xy[1]) < 0.15)[:, None]
    rows, columns = np.nonzero(dark & on_table & near)
    assert x_m[columns].mean() == pytest.approx(expected_xy[0], abs=0.02)
    assert y_m[rows].mean() == pytest.approx(expected_xy[1], abs=0.02)


def test_textures_move_with_their_geoms(scene):
    """Camera and block turned together look as before but for the lamps, and here there are none."""
    model, data = scene
    look = replace(look_of(model), lights=(), textures_G=np.full(model.ngeom, 4), ambient_3=np.ones(3))
    block = model.geom("block").id
    start_3 = data.geom_xpos[block].copy()
    camera = Camera(np.add(start_3, [0.0, 0.0, 0.4]), np.eye(3), 40.0)
    before = render(model, data, look, camera, SIZE)[hits_of(model, data, camera, SIZE) == block]
    half = np.radians(35) / 2
    qpos = data.joint(model.body("block").jntadr[0]).qpos
    qpos[:] = [*np.add(start_3, [0.05, 0.1, 0.02]), np.cos(half), 0, 0, np.sin(half)]
    mujoco.mj_forward(model, data)
    turn_33 = data.geom_xmat[block].reshape(3, 3)
    camera = Camera(data.geom_xpos[block] + [0.0, 0.0, 0.4], turn_33.copy(), 40.0)
    after = render(model, data, look, camera, SIZE)[hits_of(model, data, camera, SIZE) == block]
    assert len(before) == len(after) > 100
    assert len(np.unique(before, axis=0)) > 3
    assert (np.abs(before.astype(int) - after) > 2).any(-1).mean() < 0.03


@pytest.mark.parametrize("texture", [1, 5, 42, 137, TEXTURES])
def test_a_texture_mixes_both_colours_and_each_point_alone(texture):
    rng = np.random.default_rng(texture)
    position_2N = rng.uniform(-5, 5, (2, 3000)).astype(np.float32)
    mix_N = mix_at(np.full(3000, texture), position_2N)
    assert mix_N.min() >= 0 and mix_N.max() <= 1 and mix_N.std() > 0.15
    some = rng.permutation(3000)[:77]
    np.testing.assert_array_equal(mix_at(np.full(77, texture), position_2N[:, some]), mix_N[some])


def test_no_two_textures_are_alike():
    position_2N = np.random.default_rng(0).uniform(-5, 5, (2, 400)).astype(np.float32)
    patterns = {mix_at(np.full(400, texture), position_2N).tobytes() for texture in range(1, TEXTURES + 1)}
    assert len(patterns) == TEXTURES


def test_nothing_lit_is_black_and_darkness_is_not_blinding(scene):
    model, data = scene
    look = replace(look_of(model), colours_G3=np.full((model.ngeom, 3), 0.8), textures_G=np.zeros(model.ngeom, int))
    lamps = tuple(replace(light, colour_3=np.zeros(3)) for light in look.lights)
    dim = render(model, data, replace(look, lights=lamps), CAMERA, SIZE)
    assert dim.min() > 50
    lamps = tuple(replace(light, colour_3=np.full(3, 0.5)) for light in look.lights)
    bright = render(model, data, replace(look, lights=lamps), CAMERA, SIZE)
    assert (bright == 255).mean() < 0.1


@pytest.mark.parametrize("backend", [None, "disable"])
def test_no_opengl_is_needed(tmp_path, backend):
    """A picture is made where no display and no OpenGL library can be reached, and none gets loaded."""
    script = f"""
import sys, mujoco, numpy as np
from squadron.sim.manipulation.camera import render
from squadron.sim.manipulation.view import Camera, Light, Look
model = mujoco.MjModel.from_xml_string({SCENE!r})
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
grey = np.full((model.ngeom, 3), 0.5)
sky = np.full(3, 0.5)
lamp = Light(np.array([0.0, 0.0, -1.0]), sky)
look = Look(grey, grey, np.zeros(model.ngeom, int), sky, (lamp,), sky, sky, 0)
assert render(model, data, look, Camera(np.array([0.4, 0, 2.0]), np.eye(3), 45.0), 32).std() > 0
assert not any(name.split(".")[0] == "OpenGL" for name in sys.modules), "OpenGL was imported"
mapped = {{line.split()[-1].rsplit("/", 1)[-1] for line in open("/proc/self/maps") if "/" in line}}
opengl = ("libGL.", "libGLX", "libEGL", "libOSMesa", "libOpenGL")
assert not [name for name in mapped if name.startswith(opengl)]
if {backend!r} == "disable":
    assert "glfw" not in sys.modules, "glfw was imported"
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY")}
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    if backend:
        environment["MUJOCO_GL"] = backend
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
