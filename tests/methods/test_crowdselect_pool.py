"""What a user may hand in as a pool, and what is refused before anything is asked."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squadron.core.config import Config, load_config
from squadron.core.errors import ConfigError, InputError, SquadronError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.data.rows import RowsFile
from squadron.llm.batch.collect import read_answers
from squadron.llm.settings import ScriptedModel
from squadron.methods.crowdselect import pool
from squadron.methods.crowdselect.config import CrowdSelectConfig, PoolConfig
from squadron.methods.crowdselect.records import Pool
from squadron.methods.crowdselect.selection import families_of
from squadron.methods.crowdselect.synthetic_task import WorldConfig

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "crowdselect" / "alpaca_eval_responses.jsonl.gz"
WORLD = WorldConfig(pool=12, held_out=10)


class Nothing(Config):
    pass


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    run = Run("test", Nothing(), Folder(tmp_path / "run"), Profile(name="auto"), track=())
    stage = Stage(run, "read_pool", "", {}, run.folder / "stages" / "read_pool-0")
    stage.begin()
    return stage


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def to_file(*rows: Any) -> str:
        path = tmp_path / "pool.jsonl"
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return str(path)

    return to_file


def read(stage: Stage, path: str, **settings: Any) -> Pool:
    return pool.read_pool(stage, PoolConfig(path=path, **settings), WORLD, ())


def rows(stage: Stage, file: RowsFile) -> list[Any]:
    return list(file.rows(stage.run.folder))


def headlines(stage: Stage) -> dict[str, str]:
    return dict(stage.folder.read_json("headlines.json")["headlines"])


def test_what_is_kept_out_does_not_depend_on_the_order_of_rows(stage: Stage, write: Callable[..., str]) -> None:
    lines = [{"instruction": f"do {n}", "answer": n} for n in range(40)]
    kept = []
    for order in (lines, lines[::-1]):
        read_in = read(stage, write(*order), reference="answer", held_out=0.25)
        assert (read_in.questions.count, read_in.held_out.count) == (30, 10)
        held_out, chosen_from = rows(stage, read_in.held_out), rows(stage, read_in.questions)
        assert not {row["id"] for row in held_out} & {row["id"] for row in chosen_from}
        kept.append({row["instruction"]: row["reference"] for row in held_out})
    assert kept[0] == kept[1] and all(isinstance(answer, str) for answer in kept[0].values())


def test_a_repeated_instruction_counts_once(stage: Stage, write: Callable[..., str]) -> None:
    path = write({"instruction": "a"}, {"instruction": "b"}, {"instruction": "a"})
    assert read(stage, path, held_out=0).questions.count == 2


def test_responses_that_come_with_the_file_are_taken_as_they_are(stage: Stage, write: Callable[..., str]) -> None:
    def response(model: str, size: float, content: str | None, score: float | None) -> dict[str, Any]:
        return {"model": model, "family": "f", "size_b": size, "content": content, "score": score}

    path = write(
        {"instruction": "a", "responses": [response("large", 8, "A", 0.5), response("small", 1, "aa", 0)]},
        {"instruction": "b", "responses": [response("small", 1, "b", None)]},
    )
    read_in = read(stage, path, layout="responses", held_out=0)
    assert [model.name for model in read_in.crowd] == ["large", "small"]
    assert families_of(read_in.crowd) == [[1, 0]]
    large, small = ([dict(row) for row in read_answers(stage.run.folder, one)] for one in read_in.answers)
    assert [(row["response"], row["score"]) for row in large] == [("A", 0.5), (None, None)]
    assert [(row["response"], row["score"]) for row in small] == [("aa", 0.0), ("b", None)]
    assert [one.failed for one in read_in.answers] == [1, 0]


def test_a_column_for_each_model(stage: Stage, write: Callable[..., str]) -> None:
    cell = {"content": "x", "rm-a": 1.5, "rm-b": -2}
    path = write({"uuid": "1", "instruction": "a", "m": cell}, {"uuid": "2", "instruction": "b", "m": None})
    settings = PoolConfig(path=path, id="uuid", layout="generator_zoo", score="rm-b", held_out=0)
    model = ScriptedModel(name="m", family="f", size_b=1, otherwise="never asked")
    (answers,) = pool.read_pool(stage, settings, WORLD, (model,)).answers
    assert [row["score"] for row in read_answers(stage.run.folder, answers)] == [-2.0, None]


RESPONSES = {"layout": "responses"}


def given(part: dict[str, Any]) -> list[Any]:
    """A row whose second response is as `part` says."""
    good = {"model": "m", "family": "f", "size_b": 1, "content": "x", "score": 0.5}
    return [{"instruction": "a", "responses": [good, good | {"model": "n"} | part]}]


BAD: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "ids that occur twice": ([{"i": 1, "instruction": "a"}, {"i": 1, "instruction": "b"}], {"id": "i"}, "occurs twice"),
    "an empty row": ([{"instruction": "a"}, {"instruction": "  "}], {}, "'instruction' is empty"),
    "a row without text": ([{"instruction": "a"}, {"instruction": 7}], {}, "holds a number, not text: 7"),
    "an enormous row": ([{"instruction": "a"}, {"instruction": "x" * 40_000}], {}, "40,000 characters"),
    "no such column": ([{"instruct": "a"}, {"instruct": "b"}], {}, "is missing from this record"),
    "one row": ([{"instruction": "a"}], {}, "too few"),
    "no JSON": (['{"instruction": '], {}, "not valid JSON"),
    "an id that is a list": ([{"i": [1], "instruction": "a"}], {"id": "i"}, "'i' holds a list, not a text or a number"),
    "a reference that is an object": (
        [{"instruction": "a", "answer": {"text": "b"}}],
        {"reference": "answer"},
        "'answer' holds an object, not a text or a number",
    ),
    "no responses": ([{"instruction": "a"}, {"instruction": "b"}], {"layout": "responses"}, "'responses' is missing"),
    "responses of text": (
        [{"instruction": "a", "responses": ["x"]}],
        RESPONSES,
        "'responses' holds a text, not an obj",
    ),
    "a size in words": (given({"size_b": "7B"}), RESPONSES, "'size_b' holds a text, not a number of billions"),
    "no size": (given({"size_b": 0}), RESPONSES, "'size_b' holds a number, not a number of billions"),
    "a family of number": (given({"family": 7}), RESPONSES, "'family' holds a number, not text"),
    "a model without a name": (given({"model": None}), RESPONSES, "'model' is empty in this record"),
    "a score in words": (given({"score": "n/a"}), RESPONSES, "'score' holds a text, not a finite number: 'n/a'"),
    "a score that is none": (given({"score": float("nan")}), RESPONSES, "'score' holds a number, not a finite number"),
    "a score without end": (given({"score": 10**400}), RESPONSES, "'score' holds a number, not a finite number"),
    "a response in parts": (given({"content": [{"text": "x"}]}), RESPONSES, "'content' holds a list, not text"),
    "a size that changes": (
        [
            {"instruction": text, "responses": [{"model": "m", "size_b": size, "content": "x"}]}
            for text, size in (("a", 1), ("b", 2))
        ],
        {"layout": "responses"},
        "changes its family or size",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused_with_their_place(name: str, stage: Stage, write: Callable[..., str]) -> None:
    lines, settings, words = BAD[name]
    with pytest.raises(InputError, match=words) as refused:
        read(stage, write(*lines), **settings)
    assert "pool.jsonl" in refused.value.where


CONTRADICTIONS = {
    "pool.path=x.jsonl": "give models to answer them",
    "pool.layout=responses": "needs pool.path",
    "reward.provider=column": "needs a pool that comes with responses",
    "selection.arms=[tags]": "need selection.judge",
    "selection.weights=[1,2]": "selection.weights",
    "students.arms=[ifd]": "which selection.arms does not",
    "selection.cluster=3": "did you mean clusters",
}


@pytest.mark.parametrize("word", CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused(word: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(CrowdSelectConfig, overrides=[word])
    assert CONTRADICTIONS[word] in str(refused.value)


@pytest.mark.skipif(not REAL.exists(), reason="the real responses are not here: shared/data/crowdselect")
def test_real_responses(stage: Stage) -> None:
    """805 instructions, 9 models in 4 families; a cut file is refused."""
    read_in = read(stage, str(REAL), layout="responses", held_out=0)
    assert (read_in.questions.count, len(read_in.crowd)) == (805, 9)
    assert sorted(map(len, families_of(read_in.crowd))) == [2, 2, 2, 3]
    scores = np.array([[row["score"] for row in read_answers(stage.run.folder, one)] for one in read_in.answers])
    assert scores.shape == (9, 805) and np.nanmin(scores) >= 0 and np.nanmax(scores) <= 1
    cut = Path(stage.run.folder.path) / "cut.jsonl.gz"
    cut.write_bytes(REAL.read_bytes()[:100_000])
    with pytest.raises(SquadronError, match="damaged or cut short"):
        read(stage, str(cut), layout="responses", held_out=0)
    with gzip.open(REAL) as stream:
        assert json.loads(stream.readline())["instruction"]


def _zoo(**cells: Any) -> dict[str, Any]:
    return {"instruction": "do " + "-".join(cells), **cells}


ZOO = {"layout": "generator_zoo", "score": "rm", "held_out": 0.0}
CELL = {"content": "x", "rm": 1.0}
BAD_ZOO: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "a column that no row has": ([_zoo(small=CELL, larg=CELL), _zoo(small=CELL)], {}, "did you mean larg"),
    "a score that no response has": ([_zoo(small=CELL, large=CELL)] * 2, {"score": "rmx"}, "did you mean rm"),
    "a column of text": ([_zoo(small=CELL, large="x")] * 2, {}, "'large' holds a text, not an object: 'x'"),
    "a score of words": (
        [_zoo(small=CELL, large={"content": "x", "rm": "good"})] * 2,
        {},
        "'rm' holds a text, not a finite number: 'good'",
    ),
}


@pytest.mark.parametrize("name", BAD_ZOO)
def test_columns_of_models_are_checked(name: str, stage: Stage, write: Callable[..., str]) -> None:
    lines, settings, words = BAD_ZOO[name]
    lines = [line | {"instruction": f"{line['instruction']} {number}"} for number, line in enumerate(lines)]
    models = tuple(ScriptedModel(name=one, otherwise="never asked") for one in ("small", "large"))
    with pytest.raises(InputError) as refused:
        pool.read_pool(stage, PoolConfig(path=write(*lines), **(ZOO | settings)), WORLD, models)
    assert words in str(refused.value) and "pool.jsonl" in refused.value.where


def test_rows_that_lack_a_model_are_counted(stage: Stage, write: Callable[..., str]) -> None:
    path = write(_zoo(small=CELL, large=CELL), _zoo(small=CELL), {"instruction": "none", "large": {"rm": 2.0}})
    models = tuple(ScriptedModel(name=one, otherwise="never asked") for one in ("small", "large"))
    read_in = pool.read_pool(stage, PoolConfig(path=path, **ZOO), WORLD, models)
    assert [(one.answered, one.failed) for one in read_in.answers] == [(2, 1), (1, 2)]
    assert headlines(stage)["of 3 rows lack a model"] == "small 1, large 2"


@pytest.mark.parametrize("key", ["score", "content"])
def test_scores_or_responses_alone_are_read(key: str, stage: Stage, write: Callable[..., str]) -> None:
    value = {"score": 0.5, "content": "x"}[key]
    lines = [{"instruction": text, "responses": [{"model": "m", key: value}]} for text in ("a", "b")]
    (answers,) = read(stage, write(*lines), layout="responses", held_out=0).answers
    assert (answers.answered, answers.failed) == (2, 0)
    found = [(row["score"], row["response"]) for row in read_answers(stage.run.folder, answers)]
    assert found == [(0.5, None) if key == "score" else (None, "x")] * 2
    assert ("responses in the pool" in headlines(stage)) == (key == "score")


def test_responses_without_text_and_score_are_refused(stage: Stage, write: Callable[..., str]) -> None:
    lines = [{"instruction": text, "responses": [{"model": "m", "scores": 1}]} for text in ("a", "b")]
    with pytest.raises(InputError, match="did you mean scores"):
        read(stage, write(*lines), layout="responses", held_out=0)


def test_a_model_that_responds_twice_is_refused(stage: Stage, write: Callable[..., str]) -> None:
    lines = [{"instruction": text, "responses": [{"model": "m", "content": "x"}] * 2} for text in ("a", "b")]
    with pytest.raises(InputError, match="m responds twice here"):
        read(stage, write(*lines), layout="responses", held_out=0)
