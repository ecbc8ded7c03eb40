"""FLAME's policies in held-out homes: success and error as rows over the cluster, and pictures for the report."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from squadron.core.folder import Folder
from squadron.core.marker import START_OVER
from squadron.core.panels import Film
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.core.sealed_files import read_sealed
from squadron.evaluate.benchmark import run_benchmark
from squadron.evaluate.scores import Problem, Scores
from squadron.methods.flame.config import EvaluationConfig
from squadron.methods.flame.demos import read_shard
from squadron.methods.flame.records import Demos, Homes, Policy, Shard
from squadron.methods.flame.simulation import evaluate_home, film_home, measure_errors
from squadron.sim.film import film, store_film, tile


def evaluate_policies(
    stage: Stage,
    policies: Sequence[Policy],
    where: Sequence[int],
    homes: Homes,
    demos: Demos,
    config: EvaluationConfig,
) -> Scores:
    """Run every policy in every one of these held-out homes. Raises WorkerError if a policy has no result at all."""
    return run_benchmark(
        stage,
        [policy.name for policy in policies],
        _held_out(stage, where, homes, demos),
        evaluate_home,
        unit="evaluation",
        timeout_s=config.timeout_s,
        policies={policy.name: policy for policy in policies},
        run_folder=stage.run.folder,
        config=config,
    )


def measure_policies(
    stage: Stage,
    policies: Sequence[Policy],
    where: Sequence[int],
    homes: Homes,
    demos: Demos,
    config: EvaluationConfig,
) -> Scores:
    """Compare every policy with the expert's steps in every one of these held-out homes, and let none act. Raises
    WorkerError if a policy has no result at all."""
    return run_benchmark(
        stage,
        [policy.name for policy in policies],
        _held_out(stage, where, homes, demos),
        measure_errors,
        unit="evaluation",
        timeout_s=config.timeout_s,
        policies={policy.name: policy for policy in policies},
        run_folder=stage.run.folder,
    )


def _held_out(stage: Stage, where: Sequence[int], homes: Homes, demos: Demos) -> list[Problem]:
    """These held-out homes with their demonstrations; those without any are left out."""
    specs = homes.specs(stage.run.folder)
    shards = {shard.client_id: shard for shard in demos.shards(stage.run.folder).held_out}
    return [
        Problem(n, data={"spec": specs[n].model_dump(mode="json"), "shard": shards[n].model_dump(mode="json")})
        for n in where
        if n in shards
    ]


def picture_of_homes(run_folder: Folder, shards: Sequence[Shard], most: int = 16, columns: int = 8) -> bytes:
    """The first image of some homes side by side, as PNG."""
    firsts = [read_shard(run_folder, shard)[0].images_NHWC[0] for shard in shards[:most]]
    firsts += [np.full_like(firsts[0], 255)] * (-len(firsts) % min(columns, len(firsts)))
    rows = [np.concatenate(firsts[i : i + columns], axis=1) for i in range(0, len(firsts), columns)]
    stream = io.BytesIO()
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.LANCZOS).save(stream, format="PNG")
    return stream.getvalue()


def film_policy(stage: Stage, policy: Policy, homes: Homes, config: EvaluationConfig) -> Film:
    """The policy's first episode in some of the test homes, side by side."""
    specs = homes.specs(stage.run.folder)
    rows = [
        {
            "id": f"film-{n}",
            "policy": policy.model_dump(mode="json"),
            "spec": specs[n].model_dump(mode="json"),
        }
        for n in homes.test[: config.film_homes]
    ]
    folder = stage.folder / "frames"
    shots = map_rows(
        stage,
        rows,
        film_home,
        unit="film",
        timeout_s=config.timeout_s,
        run_folder=stage.run.folder,
        folder=folder,
        config=config,
    )
    clips = [
        np.load(io.BytesIO(read_sealed(folder, shot["file"], START_OVER)), allow_pickle=False)["frames"]
        for shot in shots
    ]
    labels = [f"{shot['client_id']} {'done' if shot['success'] else 'not done'}" for shot in shots]
    name = store_film(stage.folder, "film", film(tile(clips, labels), fps=10.0))
    caption = "The chosen policy in homes that took no part in training, at real speed; the number is the home's."
    return Film(title="The robot at work", file=name, caption=caption)
