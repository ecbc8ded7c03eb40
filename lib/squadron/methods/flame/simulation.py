"""FLAME's work on simulated homes, one row a home: demonstrations, evaluation, film. Runs inside workers."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from squadron.core.errors import InputError, SquadronError
from squadron.core.folder import Folder, relative
from squadron.core.sealed_files import write_sealed
from squadron.core.work import take_turns
from squadron.evaluate.benchmark import Cell
from squadron.evaluate.scores import Metrics, Problem
from squadron.methods.flame.algorithm import BCPolicy, predict, to_environment_range
from squadron.methods.flame.config import DemosConfig, EvaluationConfig
from squadron.methods.flame.demos import read_shard, write_shard
from squadron.methods.flame.records import Policy, Shard
from squadron.sim.manipulation.env import ManipulationEnv, Observation
from squadron.sim.manipulation.expert import Episode, rollout
from squadron.sim.manipulation.spec import EnvironmentSpec

ATTEMPTS_PER_EPISODE = 3


class ExpertError(SquadronError):
    """The scripted expert failed too often in one home."""


def collect_home(row: dict[str, Any], folder: Folder, run_folder: Folder, config: DemosConfig) -> dict[str, Any]:
    """Let the expert act in one home until it has succeeded `row["episodes"]` times; write the shard.

    Failed attempts are counted and not kept. Raises ExpertError if most attempts fail.
    """
    spec = EnvironmentSpec.model_validate(row["spec"])
    env = ManipulationEnv(spec, image_size=config.image_size, max_steps=config.max_steps, shadows=config.shadows)
    kept: list[Episode] = []
    attempts = 0
    while len(kept) < row["episodes"]:
        if attempts == ATTEMPTS_PER_EPISODE * row["episodes"]:
            what = f"the expert succeeded in {len(kept)} of {attempts} attempts in home {spec.client_id}"
            raise ExpertError(what, fix="use a lower demos.action_noise, or look at this home's specification")
        episode = rollout(env, config.seed * 100_000 + attempts, action_noise=config.action_noise)
        attempts += 1
        if episode.success:
            kept.append(episode)
    name = f"home-{spec.client_id:03d}.parquet"
    write_shard(folder, name, spec, config.image_size, kept)
    steps = sum(len(episode.actions_TA) for episode in kept)
    counts = {"episodes": len(kept), "steps": steps, "attempts": attempts}
    shard = Shard.of(run_folder, relative(folder, run_folder, name), client_id=spec.client_id, **counts)
    return shard.model_dump(mode="json")


def evaluate_home(
    cell: Cell, policies: Mapping[str, Policy], run_folder: Folder, config: EvaluationConfig
) -> list[Metrics]:
    """Run one policy in one held-out home: success of each episode, and squared errors on the expert's steps."""
    (chosen,), (home,) = [policies[name] for name in cell.methods], cell.problems
    policy = load_policy(run_folder, chosen)
    env = _environment(EnvironmentSpec.model_validate(home.data["spec"]), chosen.image_size, config)
    played = [_play(policy, env, _episode_seed(config, episode)) for episode in range(config.episodes_per_home)]
    successes, lengths = zip(*played, strict=True)
    return [{"success": successes, "steps": lengths, **_errors(policy, run_folder, home)}]


def measure_errors(cell: Cell, policies: Mapping[str, Policy], run_folder: Folder) -> list[Metrics]:
    """Squared errors of one policy on the expert's steps in one held-out home."""
    (chosen,), (home,) = [policies[name] for name in cell.methods], cell.problems
    return [_errors(load_policy(run_folder, chosen), run_folder, home)]


def _errors(policy: BCPolicy, run_folder: Folder, home: Problem) -> dict[str, float]:
    """The sum of squared errors over all steps and action values, and how many they are."""
    squared, count = 0.0, 0
    parts = read_shard(run_folder, Shard.model_validate(home.data["shard"]))
    for part in filter(len, parts):  # of a single episode, none trains
        error_NA = predict(policy, part.images_NHWC, part.states_NS) - to_environment_range(part.actions_NA)
        squared, count = squared + float(np.square(error_NA, dtype=np.float64).sum()), count + error_NA.size
    return {"squared_error": squared, "values": count}


def film_home(row: dict[str, Any], run_folder: Folder, folder: Folder, config: EvaluationConfig) -> dict[str, Any]:
    """Film the first episode of a home."""
    policy = load_policy(run_folder, Policy.model_validate(row["policy"]))
    spec = EnvironmentSpec.model_validate(row["spec"])
    frames, success = film_episode(policy, spec, row["policy"]["image_size"], 0, config)
    stream = io.BytesIO()
    np.savez_compressed(stream, frames=np.stack(frames))
    name = f"film-{spec.client_id:03d}.npz"
    write_sealed(folder, name, stream.getvalue())
    return {"client_id": spec.client_id, "file": name, "success": success}


def film_episode(
    policy: BCPolicy, spec: EnvironmentSpec, image_size: int, episode: int, config: EvaluationConfig
) -> tuple[list[np.ndarray], bool]:
    """A picture of every second step of an episode in a home, and of its end; and whether the policy succeeded."""
    from squadron.sim.manipulation.camera import Renderer

    env = _environment(spec, image_size, config)
    scene = env.scene
    frames: list[np.ndarray] = []
    camera = Renderer(scene.model, scene.look, scene.cameras["front"], config.film_size, samples=2)
    success, _ = _play(
        policy, env, _episode_seed(config, episode), each_step=lambda: frames.append(camera.render(scene.data))
    )
    return frames[::2] + frames[-1:], success


def load_policy(run_folder: Folder, policy: Policy) -> BCPolicy:
    """Build the network and load its weights. Raises InputError if the file is not weights of this network."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    network = BCPolicy(policy.image_size)
    try:
        network.load_state_dict(load(run_folder.read_bytes(policy.path)))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"not weights of this policy: {error}", where=run_folder.file(policy.path)) from None
    return network.eval()


def _play(policy: BCPolicy, env: ManipulationEnv, episode_seed: int, each_step: Any = None) -> tuple[bool, int]:
    """One closed-loop episode. The last reward is the result, as in the public code."""
    observation, reward, done, steps = env.reset(episode_seed), 0.0, False, 0
    while not done:
        take_turns()
        if each_step is not None:
            each_step()
        observation, reward, done = env.step(_act(policy, observation))
        steps += 1
    if each_step is not None:
        each_step()
    return bool(reward), steps


def _act(policy: BCPolicy, observation: Observation) -> np.ndarray:
    action_A: np.ndarray = predict(policy, observation.image_HWC[None], observation.state_S[None])[0]
    return action_A


def _environment(spec: EnvironmentSpec, image_size: int, config: EvaluationConfig) -> ManipulationEnv:
    torch.set_num_threads(1)
    return ManipulationEnv(spec, image_size=image_size, max_steps=config.max_steps)


def _episode_seed(config: EvaluationConfig, episode: int) -> int:
    return config.seed * 100_000 + 50_000 + episode
