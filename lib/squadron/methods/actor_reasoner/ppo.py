"""A driver learned by reinforcement: proximal policy optimisation (Schulman et al. 2017) with RLlib, as a baseline.

The network sees what a car can see (`reinforcement.observe`) and says FASTER, IDLE or SLOWER. It learns from episodes
that no evaluation ever sees, and knows neither styles nor what drivers will do. A training that was cut off begins
anew: it takes minutes, and all that RLlib holds (averages of the optimiser, episodes under way, random numbers of each
runner) would have to be put back for it to end with the weights of one that was not.

Letters: B episodes, F features, H hidden units, A actions.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from squadron.core.config import fingerprint
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources
from squadron.methods.actor_reasoner.algorithm import ACCELERATIONS
from squadron.methods.actor_reasoner.config import PpoConfig
from squadron.methods.actor_reasoner.episodes import REINFORCEMENT
from squadron.methods.actor_reasoner.reinforcement import (
    FEATURES,
    DrivingEnv,
    World,
    observe,
)
from squadron.sim.driving.spec import DriversConfig, SceneName, TrafficConfig
from squadron.sim.driving.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ray.rllib.algorithms import Algorithm
    from ray.rllib.algorithms.ppo import PPOConfig as RllibConfig

VERSION = 1
"""Of the observation, the actions and the network's form: weights of another version mean something else."""
POLICY_FILE, METRICS_FILE = "policy.safetensors", "metrics.jsonl"
_ENV, _MODULE, _NOTES = "squadron-driving", "default_policy", "squadron"
_METRICS = ("episode_return_mean", "episode_len_mean")
_ACTOR = ("encoder.actor_encoder.net.mlp.", "pi.net.mlp.")


@dataclass(frozen=True, eq=False)
class PpoPolicy:
    """A trained network: layers of weights (out, in) and biases with hyperbolic tangents between them."""

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    decide_every: int

    @staticmethod
    def load(path: str) -> PpoPolicy:
        """A policy that `train_ppo` wrote, from its file or its URL.

        Raises InputError if the file holds none, one of another version, or one whose layers do not fit.
        """
        from safetensors import SafetensorError

        folder, _, name = path.rpartition("/")
        try:
            arrays, notes = _unpack(Folder(folder or ".").read_bytes(name))
        except (OSError, SafetensorError, ValueError) as error:
            raise InputError(f"no weights can be read: {error}", where=path) from None
        if (version := notes.get("version")) != VERSION:
            what = f"weights of version {version or 'unknown'}, where {VERSION} is needed"
            raise InputError(what, where=path, fix="train the policy again")
        layers = _check_layers(arrays, path)
        weights, biases = (tuple(arrays[f"{n}.{kind}"] for n in range(layers)) for kind in ("weight", "bias"))
        every = notes.get("decide_every")
        if not isinstance(every, int) or every < 1:
            raise InputError("the policy does not say how often it decides", where=path, fix="train the policy again")
        return PpoPolicy(weights, biases, every)

    def logits(self, seen_BF: np.ndarray) -> np.ndarray:
        """How much each action is preferred (B, A), before the softmax."""
        hidden_BH = np.asarray(seen_BF, np.float32)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden_BH = np.tanh(hidden_BH @ weight.T + bias)
        logits_BA: np.ndarray = hidden_BH @ self.weights[-1].T + self.biases[-1]
        return logits_BA

    def accelerations(self, traffic: Traffic) -> np.ndarray:
        """The acceleration (B, m/s²) that the automated car of each episode likes best."""
        chosen_B: np.ndarray = np.array(ACCELERATIONS)[self.logits(observe(traffic)).argmax(1)]
        return chosen_B


def train_ppo(
    scenes: Sequence[SceneName], traffic: TrafficConfig, drivers: DriversConfig, config: PpoConfig, folder: Folder
) -> str:
    """Train one policy on these scenes with RLlib, and return the path of its weights; one that is trained already is
    kept.

    Ray must be connected. Raises InputError if the folder holds a policy of other settings, ResourceError if there is
    no room for the runners.
    """
    from squadron.core.cluster import Cluster

    identity = fingerprint([VERSION, list(scenes), traffic, drivers, config])
    if _is_trained(folder, identity):
        return folder.file(POLICY_FILE)
    if config.runners:
        Cluster().require(config.runners, WorkerResources(), "reinforcement learning")
    folder.remove(METRICS_FILE)
    world = World(tuple(scenes), traffic, drivers, config.reward, config.decide_every, REINFORCEMENT)
    with _rllib(world, config) as algorithm:
        _improve(algorithm, config, folder)
        trained = _get_weights(algorithm)
    notes = {"version": VERSION, "decide_every": config.decide_every, "scenes": list(scenes), "identity": identity}
    folder.write_bytes(POLICY_FILE, _pack(_actor_layers(trained), notes))
    return folder.file(POLICY_FILE)


def _is_trained(folder: Folder, identity: str) -> bool:
    """Whether a policy of these settings is there. Raises InputError if it is one of others."""
    if not folder.exists(POLICY_FILE):
        return False
    _, notes = _unpack(folder.read_bytes(POLICY_FILE))
    if notes.get("identity") != identity:
        fix = "give the training another folder, or remove this file"
        raise InputError("a training with other settings was left here", where=folder.file(POLICY_FILE), fix=fix)
    return True


def _improve(algorithm: Algorithm, config: PpoConfig, folder: Folder) -> None:
    """Update until enough decisions were learned from."""
    from squadron.core.progress import progress

    with progress(config.decisions, "proximal policy optimisation", "decision") as bar:
        while bar.done < config.decisions:
            driven = algorithm.train()["env_runners"]
            bar.advance(int(driven["num_env_steps_sampled_lifetime"]) - bar.done)
            row = {"step": bar.done} | {name: float(driven[name]) for name in _METRICS if name in driven}
            folder.append_line(METRICS_FILE, json.dumps(row))


@contextlib.contextmanager
def _rllib(world: World, config: PpoConfig) -> Iterator[Algorithm]:
    """RLlib's algorithm, stopped at the end."""
    with _torch_to_itself():
        algorithm = _rllib_settings(world, config).build_algo()
        try:
            yield algorithm
        finally:
            algorithm.stop()
            with contextlib.suppress(OSError):
                os.rmdir(algorithm.logdir)  # an empty folder in the home directory, which RLlib makes and never uses


def _rllib_settings(world: World, config: PpoConfig) -> RllibConfig:
    """The settings in RLlib's words."""
    from ray.rllib.algorithms.ppo import PPOConfig as RllibConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.tune.registry import register_env

    register_env(_ENV, _make_env)
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # it warns that the new interfaces are in use

    def falls_from(start: float) -> Any:  # RLlib takes a schedule where its hints say a number
        return [[0, start], [config.decisions, 0.0]]

    return (
        RllibConfig()
        .environment(_ENV, env_config={"world": world})
        .framework("torch")
        .env_runners(
            num_env_runners=config.runners,
            num_envs_per_env_runner=config.envs_per_runner,
            gym_env_vectorize_mode="vector_entry_point",
        )
        .learners(num_learners=0)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=list(config.hidden), vf_share_layers=False))
        .training(
            lr=falls_from(config.learning_rate),
            train_batch_size_per_learner=config.decisions_per_update,
            minibatch_size=min(config.minibatch, config.decisions_per_update),
            num_epochs=config.epochs,
            gamma=config.discount,
            lambda_=config.advantage_decay,
            clip_param=config.clip,
            entropy_coeff=falls_from(config.entropy),
            use_kl_loss=False,
            vf_clip_param=1e9,
            vf_loss_coeff=0.5,
            grad_clip=0.5,
        )
        .debugging(seed=config.seed, log_level="ERROR")
    )


def _make_env(context: Mapping[str, Any]) -> DrivingEnv:
    return DrivingEnv(context["world"], context["num_envs"])


def _get_weights(algorithm: Algorithm) -> dict[str, np.ndarray]:
    """Weights of actor and critic by RLlib's names."""
    assert algorithm.learner_group is not None
    state = algorithm.learner_group.get_weights()[_MODULE]
    return {name: np.array(value, np.float32) for name, value in state.items()}


def _actor_layers(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The actor's layers alone, numbered from the observation to the actions."""
    found = [(part, int(name.removeprefix(part).split(".")[0])) for part in _ACTOR for name in weights if part in name]
    stems = [f"{part}{number}." for part in _ACTOR for number in sorted({n for known, n in found if known == part})]
    return {f"{n}.{kind}": weights[stem + kind] for n, stem in enumerate(stems) for kind in ("weight", "bias")}


def _check_layers(arrays: Mapping[str, np.ndarray], path: str) -> int:
    """The number of layers. Raises InputError unless they lead from an observation to a preference for each action."""
    layers, width = len(arrays) // 2, FEATURES
    for n in range(layers):
        weight, bias = arrays.get(f"{n}.weight"), arrays.get(f"{n}.bias")
        if weight is None or bias is None or weight.ndim != 2 or (len(weight), width) != (len(bias), weight.shape[1]):
            what = f"layer {n} of the policy does not take the {width} values before it"
            raise InputError(what, where=path, fix="train the policy again")
        width = len(bias)
    if width != len(ACCELERATIONS):
        what = f"the policy knows {width} actions, not {len(ACCELERATIONS)}"
        raise InputError(what, where=path, fix="train the policy again")
    return layers


def _pack(arrays: Mapping[str, np.ndarray], notes: Mapping[str, Any]) -> bytes:
    from safetensors.numpy import save

    packed: bytes = save(
        {name: np.ascontiguousarray(value) for name, value in arrays.items()}, {_NOTES: json.dumps(notes)}
    )
    return packed


def _unpack(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and notes of a safetensors file. Raises SafetensorError or ValueError if it is none."""
    from safetensors.numpy import load

    arrays = load(data)
    size = int.from_bytes(data[:8], "little")
    notes = json.loads(json.loads(data[8 : 8 + size]).get("__metadata__", {}).get(_NOTES, "{}"))
    if not isinstance(notes, dict):
        raise ValueError("its notes are of another shape")
    return arrays, notes


@contextlib.contextmanager
def _torch_to_itself() -> Iterator[None]:
    """One thread, and afterwards torch as it was before RLlib: networks this small are no faster on two threads, on a
    busy machine ten times slower, and a seed makes RLlib forbid operations that others need."""
    import torch

    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    benchmark, deterministic = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic
