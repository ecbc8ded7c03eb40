"""What tags, marks and losses are made of, and what becomes of those that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squadron.core.config import Config
from squadron.core.errors import ConfigError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.data.rows import ArrowRows, write_rows
from squadron.llm.batch.collect import QUESTION_TYPES
from squadron.llm.parsing import Unreadable
from squadron.llm.settings import Rule, ScriptedModel
from squadron.methods.crowdselect import judging
from squadron.methods.crowdselect.config import SelectionConfig
from squadron.methods.crowdselect.records import ResponseModels
from squadron.train.models.artifact import ModelArtifact
from squadron.train.objectives.layout import IGNORED

RESPONSES = ["It is 42.", None, "The {sea} is blue.", "", "Boo!"]


class Nothing(Config):
    pass


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    run = Run("crowdselect", Nothing(), Folder(tmp_path), Profile(name="auto"), track=())
    stage = Stage(run, "select", "", {}, run.folder / "stages" / "select-0")
    stage.begin()
    return stage


@pytest.fixture
def questions(stage: Stage) -> ArrowRows:
    asked = ["What is 6 times 7?", "Say nothing.", "Write a {poem} on the sea.", "Sing.", "Scare me."]
    rows = ({"id": f"q{n}", "instruction": text} for n, text in enumerate(asked))
    write_rows(stage.folder, "pool.arrow", rows, QUESTION_TYPES)
    return ArrowRows(stage.folder, ["pool.arrow"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama with random weights and a tokenizer that has a chat template, on disk."""
    import torch

    from squadron.train.models.builders import FromConfig
    from squadron.train.text.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("base")
    vocabulary = train_tokenizer(["What is 6 times 7?", "It is 42."], 300, folder)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate_size": 64, "context": 96}
    FromConfig(vocabulary=vocabulary, **size)().save_pretrained(folder)  # type: ignore[arg-type,operator]
    return str(folder)


@pytest.fixture(scope="module")
def tokenizer(base: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base)


@pytest.mark.parametrize(
    ("answer", "tags"),
    [
        ('["Math", " unit-Conversion ", "math"]', ["math", "unit conversion"]),
        ('Sure:\n```json\n["creative_writing", ""]\n```', ["creative writing"]),
        ('["C++", "C#"]', ["c++", "c#"]),
    ],
)
def test_tags_are_normalised(answer: str, tags: list[str]) -> None:
    assert judging.read_tags(answer) == tags


@pytest.mark.parametrize(
    "answer", ["math, writing", '{"tags": ["math"]}', "[]", '[" "]', '["math", 3]', '["math", "wri']
)
def test_what_is_no_list_of_tags_is_refused(answer: str) -> None:
    with pytest.raises(Unreadable):
        judging.read_tags(answer)


def test_failed_tags_are_no_tags_and_failed_rows(
    stage: Stage, questions: ArrowRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect_here(monkeypatch)
    judge = ScriptedModel(
        name="judge",
        rules=(
            Rule(pattern="6 times 7", reply='["Arithmetic"]'),
            Rule(pattern="poem", reply='["Poetry", "the sea"]'),
            Rule(pattern=r"Sing\.", reply="I would rather not."),
        ),
    )
    tags = judging.ask_tags(stage, questions, SelectionConfig(judge=judge))
    assert tags == [["arithmetic"], [], ["poetry", "the sea"], [], []]
    failures = {row["item"]: row for row in stage.failures()}
    assert set(failures) == {"judge tags: q1", "judge tags: q3", "judge tags: q4"}
    assert "no JSON" in failures["judge tags: q3"]["error"]
    assert not failures["judge tags: q3"]["retry"]  # the answer is kept: the next run would read the same
    assert failures["judge tags: q1"]["retry"]


def test_failed_marks_are_missing_and_never_zero(
    stage: Stage, questions: ArrowRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = collect_here(monkeypatch)
    judge = ScriptedModel(
        name="judge",
        rules=(
            Rule(pattern=r"It is 42\.", reply="Score: 4.5\nIt is right, and says so in 3 words."),
            Rule(pattern=r"\{poem\}.*\{sea\}", reply="Score: 7"),
            Rule(pattern="Boo!", reply="Score: 0"),
        ),
    )
    marks = judging.ask_marks(stage, questions, RESPONSES.__getitem__, SelectionConfig(judge=judge))
    np.testing.assert_equal(marks, [4.5, np.nan, np.nan, np.nan, 0.0])
    assert [row["item"] for row in stage.failures()] == ["judge marks: q2"]
    assert len(asked) == 3
    assert not any("[dimension]" in prompt for prompt in asked)


def test_nothing_is_asked_where_there_are_no_responses(stage: Stage, questions: ArrowRows, base: str) -> None:
    judge = ScriptedModel(name="judge", otherwise="Score: 5")
    marks = judging.ask_marks(stage, questions, [].__getitem__, SelectionConfig(judge=judge))
    losses = judging.ifd_losses(stage, questions, [].__getitem__, ResponseModels(base=ModelArtifact(source=base)))
    assert np.isnan([marks, *losses]).all()
    assert stage.failures() == []


def test_losses_are_those_of_transformers_whatever_the_batch(base: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from squadron.train.models.builders import Pretrained

    draw = np.random.default_rng(0)
    rows: list[judging.Row] = []
    for length in (40, 2, 17, 90, 33, 64, 5, 71, 12, 28):  # more than one batch
        ids = draw.integers(3, 250, length).tolist()
        rows.append({"input_ids": ids, "labels": [IGNORED] * (length // 3) + ids[length // 3 :]})
    losses = judging.mean_losses(Pretrained(base)(), rows)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        expected = [plain(**{name: torch.tensor([ids]) for name, ids in row.items()}).loss.item() for row in rows]
    np.testing.assert_allclose(losses, expected, atol=1e-5)


def test_both_losses_are_of_the_same_tokens(tokenizer: Any) -> None:
    after, alone = judging.encode_pair(tokenizer, "What is 6 times 7?", "It is 42.", 96)
    assert tokenizer.decode(after["input_ids"]) == (
        "<|turn|>user\nWhat is 6 times 7?<|end|>\n<|turn|>assistant\nIt is 42.<|end|>\n"
    )
    assert tokenizer.decode(alone["input_ids"]) == "<|turn|>assistant\nIt is 42.<|end|>\n"
    for row in (after, alone):
        assert tokenizer.decode([label for label in row["labels"] if label != IGNORED]) == "It is 42.<|end|>\n"


def test_a_long_response_is_cut_and_an_instruction_never(tokenizer: Any) -> None:
    after, alone = judging.encode_pair(tokenizer, "Count.", "one two three " * 99, 64)
    said = [label for label in after["labels"] if label != IGNORED]
    assert len(after["input_ids"]) == 64
    assert said == [label for label in alone["labels"] if label != IGNORED]
    assert judging.encode_pair(tokenizer, "Count. " * 99, "one", 64) == ()


def test_a_template_without_a_header_leaves_no_token_unforeseen(tokenizer: Any) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    _, alone = judging.encode_pair(bare, "Say it.", "It is 42.", 96)
    assert alone["labels"][0] == IGNORED
    assert alone["labels"].count(IGNORED) == 1


def test_a_chunk_holds_both_losses_of_its_rows(stage: Stage, base: str) -> None:
    pairs = [("What is 6 times 7?", "It is 42."), ("Count. " * 99, "one"), ("Sing.", "La la la.")]
    rows = ({"instruction": asked, "response": said} for asked, said in pairs)
    write_rows(stage.folder, "ifd.arrow", rows, {"instruction": "string", "response": "string"})
    chunk = {"id": "ifd-0", "start": 1, "stop": 3}
    losses = np.array(judging.chunk_losses(chunk, stage.folder, base)["losses"])
    assert losses.shape == (2, 2)
    assert np.isnan(losses[:, 0]).all()
    assert (losses[:, 1] > 0).all()


def test_losses_need_a_base_model(stage: Stage, questions: ArrowRows) -> None:
    with pytest.raises(ConfigError, match=r"students\.base"):
        judging.ifd_losses(stage, questions, RESPONSES.__getitem__, ResponseModels())


def collect_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let `collect` work its pools off in this process, without a cluster; the prompts that were asked."""
    from squadron.llm.batch import collect
    from squadron.llm.batch.answer_cache import KeyedLog
    from squadron.llm.batch.pools import Pool, PoolResult

    asked: list[str] = []

    def run_pools(stage: Stage, side_by_side: list[list[Pool]], **settings: Any) -> PoolResult:
        for work in (work for pools in side_by_side for pool in pools for work in pool.work):
            member: Any = work.member
            asked.extend(member.questions[row]["instruction"] for row in work.rows.tolist())
            with member.open(None) as opened, KeyedLog(work.log).writer("here.jsonl") as writer:
                for entry in member.answer(opened, work.rows.tolist()):
                    writer.write(entry)
        return PoolResult()

    monkeypatch.setattr(collect, "run_pools", run_pools)
    return asked
