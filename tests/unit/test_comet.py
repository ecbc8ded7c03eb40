"""COMET checkpoints read: against the formulas written out here, on a small encoder in the published layout."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from squadron.core.errors import InputError
from squadron.core.inputs import InputPath
from squadron.evaluate.translation.comet.config import CometMetric
from squadron.evaluate.translation.comet.hparams import read_hparams
from squadron.evaluate.translation.comet.metric import CometScorer
from squadron.evaluate.translation.comet.network import sparsemax
from squadron.evaluate.translation.comet.spans import ErrorSpan, decode_spans, span_score
from squadron.evaluate.translation.segments import Segment
from squadron.train.models.families import make_family_model

SEGMENTS = [
    Segment("1", "Das Gericht weist die Klage ab.", "The court rejects it.", "The court dismisses it.", "de", "en"),
    Segment("2", "Zwölf Boxkämpfer jagen Viktor.", "Twelve boxers", "Twelve boxers chase Viktor. " * 4, "de", "en"),
    Segment("3", "A", "a robot carries a box to the shelf; another waits", "b", "en", "en"),
    Segment("4", "Das Gericht weist die Klage ab.", "", "The court dismisses it.", "de", "en"),
]  # fmt: skip
REGRESSION = {"class_identifier": "regression_metric", "layer": "mix", "pool": "avg", "layer_norm": False,
              "layer_transformation": "sparsemax", "hidden_sizes": [8, 4], "activations": "Tanh"}  # fmt: skip
KIWI = {**REGRESSION, "class_identifier": "unified_metric", "input_segments": ["mt", "src"], "sent_layer": "mix",
        "layer_transformation": "sparsemax_patch", "word_level_training": False, "word_layer": 24}  # fmt: skip
XCOMET = {**REGRESSION, "class_identifier": "xcomet_metric", "sent_layer": "mix", "word_layer": 1,
          "error_labels": ["minor", "major", "critical"]}  # fmt: skip
State = dict[str, torch.Tensor]
Written = Callable[..., tuple[str, State]]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An XLM-RoBERTa of 3 layers, 16 dimensions and 256 positions."""
    folder = tmp_path_factory.mktemp("encoder")
    return make_family_model(folder, "xlm-roberta", kind="encoder", hidden_size=16, layers=3, context=256)


@pytest.fixture
def written(tmp_path: Path, encoder: str) -> Written:
    """A checkpoint with random weights under the names that Lightning gives COMET's modules."""

    def write(hparams: dict[str, Any], change: Callable[[State], object] = lambda state: None) -> tuple[str, State]:
        from transformers import AutoModel

        draw = torch.Generator().manual_seed(0)
        features = {"regression_metric": 96, "referenceless_regression_metric": 64}.get(hparams["class_identifier"], 16)
        shapes = {
            **{f"layerwise_attention.scalar_parameters.{layer}": (1,) for layer in range(4)},
            "layerwise_attention.gamma": (1,), "estimator.ff.0.weight": (8, features), "estimator.ff.0.bias": (8,),
            "estimator.ff.3.weight": (4, 8), "estimator.ff.3.bias": (4,), "estimator.ff.6.weight": (1, 4),
            "estimator.ff.6.bias": (1,),
        }  # fmt: skip
        if hparams["class_identifier"] == "xcomet_metric":
            shapes |= {"hidden2tag.weight": (4, 16), "hidden2tag.bias": (4,)}
        state = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
        model = AutoModel.from_pretrained(encoder, add_pooling_layer=False)
        for name, value in model.state_dict().items():
            scale = 8.0 if name.endswith("weight") and "LayerNorm" not in name else 1.0
            state[f"encoder.model.{name}"] = value * scale  # so that texts differ
        change(state)
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        torch.save({"state_dict": state, "epoch": 3, "hyper_parameters": hparams}, tmp_path / "checkpoints/model.ckpt")
        (tmp_path / "hparams.yaml").write_text(yaml.safe_dump({**hparams, "pretrained_model": encoder}))
        return str(tmp_path), state

    return write


def opened(path: str, **settings: Any) -> CometScorer:
    return CometScorer(CometMetric(path=InputPath(path), **settings))


class Formulas:
    """What the papers and COMET's documentation say, one text at a time, without padding."""

    def __init__(self, encoder: str, state: State, weigh: Callable[[torch.Tensor], torch.Tensor]) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(encoder)
        self.model = AutoModel.from_pretrained(encoder, add_pooling_layer=False).eval()
        prefix = "encoder.model."
        self.model.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        self.state = state
        scores = torch.cat([state[f"layerwise_attention.scalar_parameters.{layer}"] for layer in range(4)])
        self.weights = weigh(scores) * state["layerwise_attention.gamma"]

    def ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids

    def layers(self, ids: list[int]) -> torch.Tensor:
        """(layers, tokens, dimensions)"""
        with torch.no_grad():
            found = self.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        return torch.cat(found.hidden_states)

    def mixed(self, ids: list[int], norm: bool = False) -> torch.Tensor:
        layers = self.layers(ids)
        if norm:
            layers = torch.stack([(one - one.mean()) / one.std(correction=0) for one in layers])
        return (self.weights[:, None, None] * layers).sum(0)

    def estimate(self, features: torch.Tensor) -> float:
        for number in (0, 3, 6):
            weight, bias = (self.state[f"estimator.ff.{number}.{part}"] for part in ("weight", "bias"))
            features = weight @ features + bias
            features = features.tanh() if number < 6 else features
        return features.item()


def plain_sparsemax(scores: torch.Tensor) -> torch.Tensor:
    """By bisection for the threshold at which what is above sums to 1."""
    low, high = scores.min() - 1, scores.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (scores - middle).clamp(min=0).sum() > 1 else (low, middle)
    return (scores - low).clamp(min=0)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=9))
def test_sparsemax_is_the_nearest_point_of_the_simplex(scores: list[float]) -> None:
    found = sparsemax(torch.tensor(scores, dtype=torch.float64))
    assert found.sum().item() == pytest.approx(1) and (found >= 0).all()
    assert found.numpy() == pytest.approx(plain_sparsemax(torch.tensor(scores, dtype=torch.float64)).numpy(), abs=1e-9)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("pool", ["avg", "max", "cls"])
def test_regression_is_its_formula(written: Written, encoder: str, pool: str, norm: bool) -> None:
    path, state = written({**REGRESSION, "pool": pool, "layer_norm": norm})
    formulas = Formulas(encoder, state, plain_sparsemax)

    def embed(text: str) -> torch.Tensor:
        tokens = formulas.mixed(formulas.ids(text), norm)
        return {"avg": tokens.mean(0), "max": tokens.amax(0), "cls": tokens[0]}[pool]

    expected = []
    for one in SEGMENTS:
        assert one.reference is not None
        mt, src, ref = embed(one.translation), embed(one.source), embed(one.reference)
        parts = [mt, ref, mt * ref, (mt - ref).abs(), mt * src, (mt - src).abs()]
        expected.append(formulas.estimate(torch.cat(parts)))
    scorer = opened(path)
    statistics = scorer.statistics(SEGMENTS)
    assert scorer.needs_reference and scorer.higher_is_better
    assert scorer.scores(statistics) == pytest.approx(expected, abs=2e-5)
    assert scorer.corpus(statistics.sum(0, keepdims=True)) == pytest.approx([np.mean(expected)], abs=2e-5)
    assert np.ptp(expected) > 0.01


def test_referenceless_regression_is_its_formula(written: Written, encoder: str) -> None:
    path, state = written({**REGRESSION, "class_identifier": "referenceless_regression_metric"})
    formulas = Formulas(encoder, state, plain_sparsemax)
    mt, src = (formulas.mixed(formulas.ids(text)).mean(0) for text in (SEGMENTS[0].translation, SEGMENTS[0].source))
    expected = formulas.estimate(torch.cat([mt, src, mt * src, (mt - src).abs()]))
    scorer = opened(path)
    assert not scorer.needs_reference
    assert scorer.judge([SEGMENTS[0]._replace(reference=None)])[0].score == pytest.approx(expected, abs=2e-5)


def test_unified_metric_reads_translation_and_source_joined(written: Written, encoder: str) -> None:
    path, state = written(KIWI)
    formulas = Formulas(encoder, state, lambda scores: scores.softmax(0))  # for sparsemax_patch
    expected = []
    for one in SEGMENTS:
        joined = [*formulas.ids(one.translation), 2, *formulas.ids(one.source)[1:]]  # <s> mt </s></s> src </s>
        expected.append(formulas.estimate(formulas.mixed(joined)[0]))
    scorer = opened(path)
    assert formulas.tokenizer.convert_tokens_to_ids("</s>") == 2 and not scorer.needs_reference
    assert [one.score for one in scorer.judge(SEGMENTS)] == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("reference", [True, False])
def test_xcomet_is_its_formula(written: Written, encoder: str, reference: bool) -> None:
    def loud(state: State) -> None:
        state["hidden2tag.weight"] *= 3
        state["estimator.ff.6.weight"] *= 0.2
        state["estimator.ff.6.bias"] = torch.tensor([0.7])

    path, state = written(XCOMET, loud)
    formulas = Formulas(encoder, state, plain_sparsemax)
    judged = opened(path, reference=reference).judge(SEGMENTS)
    counted, within = 0, 0
    for one, found in zip(SEGMENTS, judged, strict=True):
        assert one.reference is not None
        mt, src, ref = map(formulas.ids, (one.translation, one.source, one.reference))
        inputs = [[*mt, 2, *src[1:]]]
        if reference:
            inputs += [[*mt, 2, *ref[1:]], [*mt, 2, *src[1:], 2, *ref[1:]]]
        shares, weights = ((0.12, 0.33, 0.33), (0.1667, 0.3333, 0.5)) if reference else ((0.78,), (1.0,))
        score, tags = 0.0, torch.zeros(len(mt), 4)
        for ids, share, weight in zip(inputs, shares, weights, strict=True):
            estimate = formulas.estimate(formulas.mixed(ids)[0])
            within += 0 < estimate < 1
            score += share * min(1.0, max(0.0, estimate))
            logits = formulas.layers(ids)[1] @ state["hidden2tag.weight"].T + state["hidden2tag.bias"]
            tags += weight * logits.softmax(-1)[: len(mt)]
        severities = runs(tags.argmax(1).tolist())
        assert [span.severity for span in found.spans] == severities
        counted += len(severities)
        penalty = sum({"minor": 1, "major": 5, "critical": 10}[severity] for severity in severities)
        assert found.score == pytest.approx(score + 0.22 * (25 - min(25, penalty)) / 25, abs=5e-5)
        assert all(0 <= span.start <= span.end <= len(one.translation) for span in found.spans)
        assert all(0.25 <= span.confidence <= 1 for span in found.spans)
    assert counted > 0 and within > 0


def runs(tags: list[int]) -> list[str]:
    """The severity of the first of each run of tags that another token ends."""
    closed = [tag and ("minor", "major", "critical")[tag - 1] for tag in tags]
    firsts = [place for place, tag in enumerate(tags) if tag and (place == 0 or not tags[place - 1])]
    return [str(closed[place]) for place in firsts if 0 in tags[place:]]


def test_spans_by_hand() -> None:
    tags = [0, 1, 3, 0, 2, 2, 0, 3]
    probabilities = np.full((8, 4), 0.1)
    probabilities[np.arange(8), tags] = [0.7, 0.7, 0.5, 0.7, 0.6, 0.4, 0.7, 0.7]
    offsets = [(0, 0), (0, 2), (2, 5), (6, 7), (8, 9), (9, 12), (13, 15), (0, 0)]
    spans = decode_spans(probabilities, offsets, ("minor", "major", "critical"))
    assert spans == (ErrorSpan(0, 5, "minor", pytest.approx(0.6)), ErrorSpan(8, 12, "major", pytest.approx(0.5)))
    assert span_score(spans) == pytest.approx(19 / 25)
    assert span_score([ErrorSpan(0, 1, "critical", 1.0)] * 3) == 0
    assert span_score([]) == 1


@pytest.mark.parametrize("hparams", [REGRESSION, KIWI, XCOMET], ids=["regression", "unified", "xcomet"])
def test_scores_depend_on_no_other_segment_and_no_batch(written: Written, hparams: dict[str, Any]) -> None:
    path, _ = written(hparams)
    together = opened(path).judge(SEGMENTS)
    small = opened(path, tokens_at_once=16).judge(SEGMENTS[::-1])[::-1]
    alone = [opened(path).judge([one])[0] for one in SEGMENTS]
    for other in (small, alone):
        assert [one.score for one in other] == pytest.approx([one.score for one in together], abs=1e-5)
        assert [[span[:3] for span in one.spans] for one in other] == [
            [span[:3] for span in one.spans] for one in together
        ]
    assert opened(path).judge([]) == []


def test_texts_longer_than_the_encoder_are_cut(written: Written, encoder: str) -> None:
    path, state = written(KIWI)
    formulas = Formulas(encoder, state, lambda scores: scores.softmax(0))
    long = Segment(
        "1", "Das Gericht weist die Klage ab. " * 40, "The court rejects the action. " * 40, None, "de", "en"
    )
    mt, src = (formulas.tokenizer(text, truncation=True, max_length=254)["input_ids"] for text in long[2:0:-1])
    expected = formulas.estimate(formulas.mixed([*mt, 2, *src[1:]][:256])[0])
    assert opened(path).judge([long])[0].score == pytest.approx(expected, abs=2e-5)


def test_without_a_reference_there_is_no_score(written: Written) -> None:
    path, _ = written(REGRESSION)
    scorer = opened(path)
    some = [SEGMENTS[0], SEGMENTS[1]._replace(reference=None)]
    statistics = scorer.statistics(some)
    assert np.isnan(scorer.scores(statistics)).tolist() == [False, True]
    assert scorer.corpus(statistics.sum(0, keepdims=True)) == pytest.approx(scorer.scores(statistics)[:1])
    assert np.isnan(scorer.corpus(scorer.statistics(some[1:]))).all()


def test_what_only_training_needs_is_passed_over(written: Written) -> None:
    def train(state: State) -> None:
        state["layerwise_attention.dropout_mask"] = torch.zeros(4)
        state["layerwise_attention.dropout_fill"] = torch.full((4,), -1e20)
        state["encoder.model.embeddings.position_ids"] = torch.arange(258)[None]
        state["wordloss.weight"] = torch.ones(4)

    plain = opened(written(XCOMET)[0]).statistics(SEGMENTS)
    assert (opened(written(XCOMET, train)[0]).statistics(SEGMENTS) == plain).all()


def test_weights_in_safetensors_are_the_same(written: Written) -> None:
    path, state = written(REGRESSION)
    before = opened(path).statistics(SEGMENTS)
    (Path(path) / "checkpoints/model.ckpt").unlink()
    save_file({name: value.contiguous() for name, value in state.items()}, Path(path) / "model.safetensors")
    assert (opened(path).statistics(SEGMENTS) == before).all()


def test_weights_of_another_network_are_named(written: Written) -> None:
    path, _ = written(REGRESSION, lambda state: state.pop("estimator.ff.3.bias"))
    with pytest.raises(InputError, match=r"missing: estimator\.ff\.3\.bias\n") as missing:
        opened(path)
    assert "model.ckpt" in missing.value.where
    path, _ = written(REGRESSION, lambda state: state.update({"estimator.ff.9.bias": torch.zeros(1)}))
    with pytest.raises(InputError, match=r"unknown: estimator\.ff\.9\.bias"):
        opened(path)
    path, _ = written({**REGRESSION, "hidden_sizes": [8, 5]})
    with pytest.raises(InputError, match=r"another shape: estimator\.ff\.3\.bias \(4,\) for \(5,\)"):
        opened(path)


class Evil:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('code of a checkpoint was run')",)


@pytest.mark.parametrize("save", [torch.save, lambda what, place: place.write_bytes(pickle.dumps(what, 2))])
def test_a_checkpoint_with_code_is_refused(written: Written, save: Callable[[Any, Path], object]) -> None:
    path, state = written(REGRESSION)
    save({"state_dict": state, "hyper_parameters": Evil()}, Path(path) / "checkpoints" / "model.ckpt")
    with pytest.raises(InputError, match="more than weights"):
        opened(path)


def test_what_is_no_checkpoint(written: Written, tmp_path: Path) -> None:
    path, _ = written(REGRESSION)
    weights, hparams = Path(path) / "checkpoints" / "model.ckpt", Path(path) / "hparams.yaml"
    stated = yaml.safe_load(hparams.read_text())
    for change, said in (
        ({"class_identifier": "ranking_metric"}, "class_identifier"),
        ({"encoder_model": "MiniLM"}, "encoder_model"),
        ({"encoder_model": "XLM-RoBERTa-XL"}, "is to be XLM-RoBERTa-XL"),
        ({"layer": 4}, "layers 0 to 3"),
        ({"pretrained_model": "./nowhere"}, "encoder of a COMET checkpoint"),
    ):
        hparams.write_text(yaml.safe_dump({**stated, **change}))
        with pytest.raises(InputError, match=said):
            opened(path)
    hparams.write_text(yaml.safe_dump(stated))
    whole = weights.read_bytes()
    for content, said in (
        (b"", "too early"),
        (b"nothing", "no checkpoint of PyTorch"),
        (b"<html>not found</html>", "no checkpoint of PyTorch"),
        (whole[:2000], "cannot be read"),
        (whole[:-200], "cannot be read"),
    ):
        weights.write_bytes(content)
        with pytest.raises(InputError, match=said):
            opened(path)
    torch.save([1, 2], weights)
    with pytest.raises(InputError, match="state_dict"):
        opened(path)
    weights.unlink()
    with pytest.raises(InputError, match="has weights"):
        opened(path)
    hparams.unlink()
    with pytest.raises(InputError, match=r"hparams\.yaml"):
        opened(path)


@pytest.mark.parametrize(
    ("name", "kind", "needs"),
    [("wmt22-comet-da", "regression", True), ("wmt22-cometkiwi-da", "unified", False), ("XCOMET-XL", "xcomet", False)],
)
def test_published_names_rehearse(tmp_path: Path, name: str, kind: str, needs: bool) -> None:
    from squadron.core.rehearsal import rehearse
    from squadron.rehearse.stand_ins import LocalStandIns

    stand_ins = LocalStandIns(tmp_path)
    small = rehearse(CometMetric(path=InputPath(f"Unbabel/{name}")), stand_ins)
    scorer = CometScorer(small)
    found = scorer.judge(SEGMENTS)
    assert not np.isnan([one.score for one in found]).any() and len({one.score for one in found}) == len(found)
    assert scorer.needs_reference == needs
    assert read_hparams(small.path).class_identifier == f"{kind}_metric"
    assert "random weights" in stand_ins.notes[f"Unbabel/{name}"]
