"""The reranker: trained on questions whose answers are known, chosen by Hit@1 on others, and used.

C candidates, D drawn ones, T places of a path, S scores, K strings of types, E dimensions of their vectors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.run import Stage
from squadron.methods.mor.algorithm import Candidates
from squadron.methods.mor.features import Features, extract_features, type_strings
from squadron.methods.mor.reranker_config import Feature, RerankerConfig
from squadron.retrieval.graph import KnowledgeBase
from squadron.retrieval.vectors import embed_texts
from squadron.train.batching.batches import Row, RowSource
from squadron.train.models.artifact import ModelArtifact

if TYPE_CHECKING:
    from squadron.train.checkpoints.checkpoint import Reader

NAME = "reranker"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


class Judged(NamedTuple):
    """Candidates of a question, and which of them answer it."""

    found: Candidates
    right_C: np.ndarray


def judge(found: Candidates, answers: Sequence[int]) -> Judged:
    """Candidates next to the places of the right answers."""
    return Judged(found, np.isin(found.place_C, np.asarray(answers, np.int64)))


class NetworkSettings(Config):
    """What the network is built by. `kinds` are its strings of types."""

    kinds: tuple[str, ...]
    places: int
    width: int
    features: tuple[Feature, ...]


@dataclass(frozen=True, eq=False)
class BuildReranker:
    """Makes the untrained network, the same each time. Travels to workers."""

    settings: NetworkSettings
    types_KE: np.ndarray
    seed: int

    def __call__(self) -> Any:
        import torch

        from squadron.methods.mor.network import Reranker

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            one = self.settings
            return Reranker(torch.tensor(self.types_KE), one.places, one.width, one.features)

    def identity(self) -> str:
        """What a checkpoint belongs to."""
        vectors = hashlib.sha256(np.ascontiguousarray(self.types_KE).tobytes()).hexdigest()
        return f"{self.settings.model_dump_json()} {vectors} {self.seed}"


@dataclass(frozen=True, eq=False)
class DrawnRows(Sequence[Row]):
    """A row for each question and pass: one of its right candidates, then wrong ones drawn with replacement, by the
    number of the row alone, so that training resumes with the very rows that it would have had."""

    features: tuple[Features, ...]
    right: tuple[np.ndarray, ...]
    passes: int
    negatives: int
    seed: int

    def __len__(self) -> int:
        return len(self.features) * self.passes

    def __getitem__(self, number: Any) -> Any:
        draw = np.random.default_rng([self.seed, number])
        one, right_C = (some[number % len(self.features)] for some in (self.features, self.right))
        wrong_D = draw.choice(np.flatnonzero(~right_C), self.negatives)
        place_D = np.concatenate([draw.choice(np.flatnonzero(right_C), 1), wrong_D])
        return {"scores": one.score_CS[place_D], "kinds": one.kind_C[place_D], "codes": one.code_CT[place_D]}

    def __iter__(self) -> Iterator[Row]:
        return (self[number] for number in range(len(self)))


class RerankerModel(ModelArtifact):
    """A reranker that was trained."""

    def open(self, run: Folder) -> OpenedReranker:
        """What scores with it."""
        return open_reranker(self.locate(run))


class TrainedReranker(Config):
    """A reranker, the share of validation questions whose first candidate is right with it, by the step of each state
    that was saved, and the loss of each step."""

    model: RerankerModel
    hits: dict[int, float]
    losses: tuple[float, ...]


def fit_reranker(
    stage: Stage,
    graph: KnowledgeBase,
    targets: Sequence[str],
    learned: Sequence[Judged],
    validation: Sequence[Judged],
    config: RerankerConfig,
) -> TrainedReranker:
    """Train on questions, and keep the state that is right most often on `validation`; resumes where it was.

    Questions whose candidates are all right, or all wrong, teach nothing and are left out, and counted. Raises
    InputError if no question is left; and as `train_several` does.
    """
    from squadron.train.multi_run import TrainJob, train_several
    from squadron.train.objectives import per_row

    useful = [one for one in learned if one.right_C.any() and not one.right_C.all()]
    if not useful:
        fix = "look at what the traversal finds, or give more questions"
        raise InputError("no question has a right candidate next to a wrong one", where="reranker", fix=fix)
    from squadron.methods.mor.network import first_is_right

    places = useful[0].found.path_CT.shape[1]
    kinds = type_strings(graph.schema, targets, places)
    number = {kind: place for place, kind in enumerate(kinds)}
    pack, _ = embed_texts(kinds, config.embedder)
    settings = NetworkSettings(kinds=kinds, places=places, width=config.width, features=config.features)
    build = BuildReranker(settings, np.asarray(pack.vectors_NE, np.float32), config.training.seed)
    rows = DrawnRows(
        tuple(extract_features(graph, one.found, number) for one in useful), tuple(one.right_C for one in useful),
        config.passes, config.negatives, config.training.seed,
    )  # fmt: skip
    spec = config.training.model_copy(update={"epochs": 1.0})
    steps = spec.steps or RowSource(rows).steps(spec)
    every = max(1, steps // config.choices)
    kept = spec.checkpoint.model_copy(update={"every": every, "keep_last": steps // every + 2, "keep_best": False})
    held = [(extract_features(graph, one.found, number), one.right_C) for one in validation]
    export = partial(_export, build, stage.folder / NAME, held, config.top)
    job = TrainJob(
        NAME, build, per_row(first_is_right), rows, spec.model_copy(update={"checkpoint": kept}), length=None,
        identity=build.identity(), export=export,
    )  # fmt: skip
    (result,) = train_several(stage, [job])
    stage.headline("questions that the reranker learned from", f"{len(useful):,} of {len(learned):,}")
    model = RerankerModel.made(stage, f"{NAME}/model", name=NAME)
    hits = json.loads(Path(model.locate(stage.run.folder), "chosen.json").read_text())["hits"]
    return TrainedReranker(model=model, hits=hits, losses=result.losses)


class OpenedReranker:
    """A reranker that scores candidates, on the CPU: it is small."""

    def __init__(self, model: Any, settings: NetworkSettings) -> None:
        self._model, self.settings = model, settings
        self._number = {kind: place for place, kind in enumerate(settings.kinds)}

    def score(self, graph: KnowledgeBase, found: Candidates) -> np.ndarray:
        """What each candidate scores, in their order. Raises InputError for paths of another length, or of types that
        its graph did not have."""
        if found.path_CT.shape[1] != self.settings.places:
            what = f"paths of {found.path_CT.shape[1]} places; it was trained on {self.settings.places}"
            raise InputError(what, where="traversal.steps", fix="search as for the training, or train anew")
        try:
            features = extract_features(graph, found, self._number)
        except KeyError as error:
            what = f"it knows no paths of the types {error.args[0]}"
            raise InputError(what, where="reranker", fix="train it on this graph") from None
        return score_features(self._model, features)

    def rerank(self, graph: KnowledgeBase, found: Candidates, top: int) -> tuple[np.ndarray, np.ndarray]:
        """Places of all candidates in their new order, and scores that descend; see `order_by`."""
        order_C, score_C = order_by(self.score(graph, found), top)
        return found.place_C[order_C], score_C


def open_reranker(path: str) -> OpenedReranker:
    """The reranker in a folder that `fit_reranker` wrote. Raises InputError if it is none."""
    import torch
    from safetensors.torch import load_file

    folder = Path(path)
    try:
        settings = NetworkSettings.model_validate(json.loads((folder / _CONFIG).read_bytes())["network"])
        weights = load_file(folder / _WEIGHTS)
        model = BuildReranker(settings, weights["types_KE"].numpy(), 0)()
        model.load_state_dict(weights)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"it is no reranker: {error}", where=path, fix="give the folder of a trained one") from None
    assert isinstance(model, torch.nn.Module)
    return OpenedReranker(model.eval(), settings)


def score_features(model: Any, features: Features) -> np.ndarray:
    """What the network says of one question's candidates."""
    import torch

    if not len(features):
        return np.empty(0, np.float32)
    arrays = (features.score_CS, features.kind_C, features.code_CT)
    with torch.no_grad():
        found: np.ndarray = model(*(torch.as_tensor(one)[None] for one in arrays))[0].numpy()
    return found


def order_by(score_C: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `top` candidates by these scores, then the others in the order that they had; and scores that say so.

    Whatever sign the scores have, who stands behind is below all that were scored. (In the published evaluator what was
    not retrieved scores 0, above candidates with negative logits.)
    """
    head = np.argsort(-score_C[:top], kind="stable")
    order_C = np.concatenate([head, np.arange(len(head), len(score_C))])
    last = float(score_C[:top].min()) if len(head) else 0.0
    behind = last - 1.0 - np.arange(len(score_C) - len(head))
    return order_C, np.concatenate([score_C[head].astype(float), behind])


def _export(
    build: BuildReranker,
    store: Folder,
    held: Sequence[tuple[Features, np.ndarray]],
    top: int,
    reader: Reader,
    folder: Path,
) -> None:
    """Write the state that has most hits on what was held out; of equal ones, the first. The last, if nothing was."""
    from safetensors.torch import save_file

    from squadron.train.checkpoints.checkpoint import Reader as Open
    from squadron.train.checkpoints.commits import complete_steps
    from squadron.train.checkpoints.export import restored

    chosen, hits = restored(build, reader), dict[int, float]()
    for step in complete_steps(store) if held else []:
        with Open(store, step) as saved:
            model = restored(build, saved)
        hits[step] = float(np.mean([_hit(model, features, right_C, top) for features, right_C in held]))
        if hits[step] > max((hit for other, hit in hits.items() if other < step), default=-1.0):
            chosen = model
    weights = {name: weight.contiguous() for name, weight in chosen.state_dict().items()}
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
    (folder / "chosen.json").write_text(json.dumps({"hits": hits}))
    (folder / _CONFIG).write_text(json.dumps({"network": build.settings.model_dump(mode="json")}, indent=2))


def _hit(model: Any, features: Features, right_C: np.ndarray, top: int) -> bool:
    if not len(features):
        return False
    order_C, _ = order_by(score_features(model, features), top)
    return bool(right_C[order_C[0]])
