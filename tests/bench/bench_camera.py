"""How many pictures a second the camera makes, on one core, for each task and size.

    python tests/bench/bench_camera.py [--task close_box] [--sizes 64 128 256] [--frames 60]

The arm moves between pictures as the expert drives it, so that each picture is a new one; only the making of
the picture is timed. "cpu" counts the process's own time, which other work on the machine disturbs least: the
best of several passes, then their mean. The floor is 500 pictures/s at 64 pixels with shadows; below it, the
script ends with status 1.
"""

from __future__ import annotations

import argparse
import os
import time

import mujoco
import numpy as np

from squadron.sim.manipulation.camera import Renderer
from squadron.sim.manipulation.env import ManipulationEnv
from squadron.sim.manipulation.spec import sample_environment
from squadron.sim.manipulation.tasks import TASKS

FLOOR = 500.0
PASSES = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(TASKS), nargs="*", default=sorted(TASKS))
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 128, 256])
    parser.add_argument("--frames", type=int, default=60, help="pictures in a pass, one for each 50 ms")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"{'task':24}{'geoms':>6}{'size':>6}  shadows{'cpu best/s':>12}{'cpu mean/s':>12}{'wall mean/s':>13}")
    slow = []
    for task in options.task:
        env, states = played(task, options.frames)
        for size in options.sizes:
            for shadows in (True, False):
                best, mean, wall = rates(env, states, size, shadows)
                row = f"{task:24}{env.scene.model.ngeom:6}{size:6}  {'yes' if shadows else 'no':7}"
                print(f"{row}{best:12.0f}{mean:12.0f}{wall:13.0f}", flush=True)
                if size == 64 and shadows and best < FLOOR:
                    slow.append(task)
    if slow:
        print(f"below {FLOOR:.0f} pictures/s at 64 pixels with shadows: {', '.join(slow)}")
    return 1 if slow else 0


def played(task: str, frames: int) -> tuple[ManipulationEnv, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """An environment without a camera, and its states while the expert plays."""
    env = ManipulationEnv(sample_environment(task, client_id=0, seed=0), image_size=0, max_steps=frames)
    env.reset(0)
    data, states = env.scene.data, []
    for _ in range(frames):
        states.append((data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy()))
        env.step(env.task.expert(env.scene))
    return env, states


def rates(
    env: ManipulationEnv,
    states: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    size: int,
    shadows: bool,
) -> tuple[float, float, float]:
    """Pictures a second: by the best pass's processor time, by the mean's, and by the clock."""
    scene = env.scene
    renderer = Renderer(scene.model, scene.look, scene.cameras["front"], size, shadows)
    cpu_s, wall_s = [], []
    for _ in range(PASSES + 1):
        cpu, wall = 0.0, 0.0
        for state in states:
            scene.data.qpos[:], scene.data.mocap_pos[:], scene.data.mocap_quat[:] = state
            mujoco.mj_kinematics(scene.model, scene.data)
            mujoco.mj_comPos(scene.model, scene.data)
            cpu, wall = cpu - time.process_time(), wall - time.perf_counter()
            renderer.render(scene.data)
            cpu, wall = cpu + time.process_time(), wall + time.perf_counter()
        cpu_s.append(cpu / len(states))
        wall_s.append(wall / len(states))
    warm_cpu_s, warm_wall_s = cpu_s[1:], wall_s[1:]
    return 1 / min(warm_cpu_s), 1 / float(np.mean(warm_cpu_s)), 1 / float(np.mean(warm_wall_s))


if __name__ == "__main__":
    raise SystemExit(main())
