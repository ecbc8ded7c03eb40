"""Every row gets a score or the reason why it has none; no failure is a low score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from squadron.llm.chat import ChatModel, ChatReply, ChatRequest, Closing, ModelUnavailable
from squadron.llm.rewards.open import open_reward
from squadron.llm.rewards.reward import Answered, RewardModel, Score
from squadron.llm.rewards.settings import (
    AnyReward,
    ClassifierReward,
    ColumnReward,
    JudgeReward,
    LabelTokenReward,
    VerifierReward,
)
from squadron.llm.settings import AnyModel, Rule, ScriptedModel

SCRIPTED = ScriptedModel(name="judge", rules=(Rule(pattern="x", reply="y"),))


def no_model(settings: AnyModel) -> ChatModel:
    raise AssertionError("nobody asks for a chat model")


def scores(reward: AnyReward | RewardModel, *rows: Answered) -> dict[str, Score]:
    opened = reward if hasattr(reward, "score") else open_reward(reward, no_model)
    found = list(opened.score(rows))
    assert len(found) == len(rows)
    return {score.key: score for score in found}


def make_tokenizer(folder: Path, *, chat: bool = True) -> int:
    """A tokenizer trained on a few words."""
    from transformers import AutoTokenizer

    from squadron.train.text.tokenizer import train_tokenizer

    vocabulary = train_tokenizer(["what is six times seven? it is forty two."] * 4, 300, folder)
    if not chat:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = None
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        tokenizer.save_pretrained(folder)
    return vocabulary


def make_classifier(folder: Path, labels: int = 1, *, bare: bool = False, chat: bool = True, pad: bool = True) -> str:
    """A random Llama with a head over sequences."""
    import torch
    from transformers import LlamaForSequenceClassification, LlamaModel

    from squadron.train.models.builders import FromConfig

    vocabulary = make_tokenizer(folder, chat=chat)
    config = FromConfig(vocabulary, 32, 2, 2, 2, 64, context=128, special_tokens={"eos_token_id": 1}).config()
    config.num_labels, config.pad_token_id = labels, 0 if pad else None
    torch.manual_seed(0)
    (LlamaModel if bare else LlamaForSequenceClassification)(config).save_pretrained(folder)
    return str(folder)


def make_labeller(folder: Path, *, chat: bool = True, bare: bool = False) -> str:
    """A random Llama that says tokens, far enough from zero for its probabilities to differ."""
    import torch
    from transformers import LlamaForCausalLM, LlamaModel

    from squadron.train.models.builders import FromConfig

    config = FromConfig(make_tokenizer(folder, chat=chat), 32, 2, 2, 2, 64, context=128, tie_embeddings=False).config()
    config.initializer_range = 0.3
    torch.manual_seed(0)
    (LlamaModel if bare else LlamaForCausalLM)(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_classifier(tmp_path_factory.mktemp("reward"))


@pytest.fixture(scope="module")
def labeller(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_labeller(tmp_path_factory.mktemp("labeller"))


@pytest.fixture(scope="module")
def plain_labeller(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_labeller(tmp_path_factory.mktemp("plain"), chat=False)


ROWS = [Answered(f"r{n}", "what is six? " * (1 + n % 3), "it is seven " * (n % 4) + str(n)) for n in range(9)]


def test_a_classifier_scores_a_row_alike_alone_and_in_a_batch(classifier: str) -> None:
    together = scores(ClassifierReward(path=classifier, batch_size=4), *ROWS)
    alone = scores(ClassifierReward(path=classifier, batch_size=1), *ROWS)
    assert not any(score.error for score in together.values())
    assert {key: score.value for key, score in together.items()} == pytest.approx(
        {key: score.value for key, score in alone.items()}, abs=1e-5
    )
    assert len({score.value for score in together.values()}) == len(ROWS)


def test_a_classifier_reads_the_conversation_as_its_chat_template_has_it(classifier: str) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    text = "<|turn|>user\nwhat is six?<|end|>\n<|turn|>assistant\nseven<|end|>\n"
    ids = torch.tensor([AutoTokenizer.from_pretrained(classifier)(text, add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        expected = AutoModelForSequenceClassification.from_pretrained(classifier).eval()(ids).logits.item()
    found = scores(ClassifierReward(path=classifier), Answered("r", "what is six?", "seven"))
    assert found["r"].value == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("options", [{"chat": False}, {"pad": False}])
def test_a_classifier_without_chat_template_or_padding_works(tmp_path: Path, options: dict[str, Any]) -> None:
    found = scores(ClassifierReward(path=make_classifier(tmp_path, **options)), *ROWS)
    assert all(score.value is not None for score in found.values())


def test_a_conversation_that_is_too_long_is_an_error_of_its_row(classifier: str) -> None:
    short, long = Answered("short", "six?", "7"), Answered("long", "six? " * 40, "7")
    found = scores(ClassifierReward(path=classifier, max_length=60), long, short)
    assert found["short"].value is not None
    assert found["long"].value is None and "reads 60" in found["long"].error


@pytest.mark.parametrize(
    ("options", "words"),
    [({"labels": 3}, "3 outputs: LABEL_0, LABEL_1, LABEL_2"), ({"bare": True}, "no weights for score.weight")],
)
def test_what_is_no_reward_model_is_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelUnavailable, match=words):
        open_reward(ClassifierReward(path=make_classifier(tmp_path, **options)), no_model)


def test_a_model_that_brings_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}')
    (tmp_path / "own.py").write_text("raise SystemExit('run')")
    with pytest.raises(ModelUnavailable, match="code of its own"):
        open_reward(ClassifierReward(path=str(tmp_path)), no_model)


def share_of_positive(path: str, text: str, positive: str = "+", negative: str = "-", begin: str = "") -> float:
    """P(positive) / (P(positive) + P(negative)) behind one text, from the whole softmax."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = torch.tensor([tokenizer(begin + text, add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        said = AutoModelForCausalLM.from_pretrained(path).eval()(ids).logits[0, -1].double().softmax(-1)
    plus, minus = (said[tokenizer.convert_tokens_to_ids(label)].item() for label in (positive, negative))
    return plus / (plus + minus)


def plain(row: Answered) -> str:
    return f"{row.instruction}\n{row.response} "


def conversation(row: Answered) -> str:
    return f"<|turn|>user\n{row.instruction}<|end|>\n<|turn|>assistant\n{row.response}"


@pytest.mark.parametrize("batch_size", [1, 4, 16])
@pytest.mark.parametrize(
    ("model", "template", "text"),
    [
        ("labeller", None, conversation),
        ("labeller", "{instruction}\n{response} ", plain),
        ("plain_labeller", None, plain),
        ("plain_labeller", "{response}<|end|>{instruction}", lambda row: f"{row.response}<|end|>{row.instruction}"),
    ],
)
def test_a_label_is_weighed_alike_alone_and_in_any_batch(
    request: pytest.FixtureRequest, model: str, template: str | None, text: Callable[[Answered], str], batch_size: int
) -> None:
    path = request.getfixturevalue(model)
    expected = {row.key: share_of_positive(path, text(row)) for row in ROWS}
    found = scores(LabelTokenReward(path=path, template=template, batch_size=batch_size), *ROWS)
    assert {key: score.value for key, score in found.items()} == pytest.approx(expected, abs=1e-5)
    assert max(expected.values()) - min(expected.values()) > 0.05


def test_labels_are_those_of_the_settings_and_swapping_them_turns_the_score_over(labeller: str) -> None:
    row = Answered("r", "what is six?", "seven")
    found = scores(LabelTokenReward(path=labeller, positive="Y", negative="N"), row)["r"].value
    swapped = scores(LabelTokenReward(path=labeller, positive="N", negative="Y"), row)["r"].value
    assert found == pytest.approx(share_of_positive(labeller, conversation(row), "Y", "N"), abs=1e-5)
    assert found is not None and swapped == pytest.approx(1 - found, abs=1e-6)


def test_the_label_follows_the_text_and_no_token_that_ends_it(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    path = make_labeller(tmp_path, chat=False)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.bos_token = "<|turn|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|turn|> $A <|end|>", special_tokens=[("<|turn|>", 2), ("<|end|>", 1)]
    )
    tokenizer.save_pretrained(path)
    assert AutoTokenizer.from_pretrained(path)("a")["input_ids"][::2] == [2, 1]
    row = Answered("r", "what is six?", "seven")
    expected = pytest.approx(share_of_positive(path, plain(row), begin="<|turn|>"), abs=1e-5)
    assert scores(LabelTokenReward(path=path), row)["r"].value == expected
    begun = LabelTokenReward(path=path, template="<|turn|>{instruction}\n{response} ")
    assert scores(begun, row)["r"].value == expected


@pytest.mark.parametrize("labels", [{"positive": "good"}, {"negative": "good"}])
def test_a_label_of_several_tokens_is_refused_by_name(labeller: str, labels: dict[str, str]) -> None:
    with pytest.raises(ModelUnavailable, match=r"must be one token: 'good' is \['g', 'o', 'o', 'd'\]\n"):
        open_reward(LabelTokenReward(path=labeller, **labels), no_model)


def test_a_language_model_without_its_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"no weights for lm_head\.weight"):
        open_reward(LabelTokenReward(path=make_labeller(tmp_path, bare=True)), no_model)


def test_a_row_fits_up_to_the_last_token_of_the_context_or_is_an_error(plain_labeller: str) -> None:
    digits = [Answered(str(count), "", "7" * (count - 2)) for count in (128, 129)]  # and a new line, and a space
    found = scores(LabelTokenReward(path=plain_labeller), *digits)
    assert found["128"].value == pytest.approx(share_of_positive(plain_labeller, plain(digits[0])), abs=1e-5)
    assert found["129"].value is None and "129 tokens, the reward model reads 128" in found["129"].error
    assert "reads 60" in scores(LabelTokenReward(path=plain_labeller, max_length=60), digits[0])["128"].error


def test_a_row_without_text_is_an_error(plain_labeller: str) -> None:
    found = scores(LabelTokenReward(path=plain_labeller, template="{instruction}{response}"), Answered("r", "", ""))
    assert found["r"].value is None and "no text" in found["r"].error


def test_a_labelling_model_takes_the_share_of_a_node_that_a_classifier_takes() -> None:
    from squadron.core.profile import Profile, WorkerResources
    from squadron.llm.batch.model_client import reward_resources

    profile = Profile(name="cards", trainer=WorkerResources(gpus=1, cpus=4))
    share = reward_resources(LabelTokenReward(path="a/b"), profile)
    assert share == reward_resources(ClassifierReward(path="a/b"), profile) == profile.trainer
    four = reward_resources(LabelTokenReward(path="a/b", gpus=4), profile)
    assert four == WorkerResources(gpus=4, cpus=16)


@pytest.mark.parametrize(("cards", "holds"), [(8, True), (4, True), (2, False), (1, False)])
def test_a_large_model_is_spread_over_cards_layer_by_layer_or_refused(cards: int, holds: bool) -> None:
    """Qwen2.5-72B has 145 GB of weights in bf16; a tenth of each card of 80 GB is left free."""
    import torch

    from squadron.core.errors import ResourceError
    from squadron.train.models.architectures import find_architecture
    from squadron.train.models.spread import spread

    config, memory = find_architecture("Qwen2.5-72B"), dict.fromkeys(range(cards), 80 * 10**9)
    if not holds:
        with pytest.raises(ResourceError, match="145 GB of weights"):
            spread(config, "causal", memory, torch.bfloat16)
        return
    placed = spread(config, "causal", memory, torch.bfloat16)
    layers = [placed[f"model.layers.{number}"] for number in range(80)]
    assert layers == sorted(layers) and set(layers) == set(range(cards))
    # The first card holds the embedding too, and the last the head.
    assert max(map(layers.count, layers)) <= 80 / cards + 2


class Judge(Closing):
    """Answers with what a function says of the question, the last question first."""

    def __init__(self, say: Callable[[str], ChatReply]) -> None:
        self.say, self.asked, self.closed = say, list[str](), False

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        from dataclasses import replace

        for request in reversed(list(requests)):
            self.asked.append(request.messages[-1]["content"])
            yield replace(self.say(self.asked[-1]), key=request.key, cost_usd=0.25)

    def close(self) -> None:
        self.closed = True


def judged(say: Callable[[str], ChatReply], *rows: Answered, **settings: Any) -> tuple[dict[str, Score], Judge]:
    judge = Judge(say)
    reward = open_reward(JudgeReward(model=SCRIPTED, **settings), lambda _: judge)
    found = scores(reward, *rows)
    reward.close()
    assert judge.closed
    return found, judge


def test_a_judge_scores_each_row_by_its_own_verdict() -> None:
    rows = [Answered(f"r{n}", "count", f"mark {n}") for n in range(1, 6)]
    found, _ = judged(lambda asked: ChatReply("", f"Fine.\nScore: {asked[-1]}/10"), *rows)
    assert {key: score.value for key, score in found.items()} == {f"r{n}": float(n) for n in range(1, 6)}
    assert all(score.cost_usd == 0.25 for score in found.values())


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (ChatReply("", "Score: 4 or 5"), "unreadable verdict: the answer holds several numbers: 4, 5, in the answer “"),
        (ChatReply("", "I cannot say."), "unreadable verdict: the answer has no number"),
        (ChatReply("", "Score: 11"), "11 is not between 1 and 10"),
        (ChatReply("", "Score: 1", finish_reason="length", completion_tokens=7), "cut off after 7 tokens"),
        (ChatReply("", finish_reason="error", error="HTTP 500"), "the judge failed: HTTP 500"),
    ],
)
def test_a_verdict_that_is_none_is_an_error_and_not_a_zero(reply: ChatReply, words: str) -> None:
    found, _ = judged(lambda _: reply, Answered("r", "i", "a"))
    assert found["r"].value is None and words in found["r"].error and found["r"].cost_usd == 0.25


def test_the_rubric_is_filled_in_once_and_braces_are_left_alone() -> None:
    rubric = 'From {low} to {high}: {instruction} / {response} / {reference}. Answer {"score": 3}.'
    rows = [Answered("with", "{response}", "{reference}", "R"), Answered("without", "i", "a")]
    found, judge = judged(lambda _: ChatReply("", "2"), *rows, rubric=rubric, low=0, high=2.5)
    assert judge.asked == ['From 0 to 2.5: {response} / {reference} / R. Answer {"score": 3}.']
    assert found["with"].value == 2
    assert found["without"].value is None and "no reference answer" in found["without"].error


def test_a_column_is_taken_as_it_is() -> None:
    rows = [
        Answered("there", "i", "a", score=-1.5),
        Answered("missing", "i", "a"),
        Answered("nan", "i", "a", score=float("nan")),
    ]
    found = scores(ColumnReward(), *rows)
    assert found["there"] == Score("there", -1.5)
    assert found["missing"].value is None and "no score" in found["missing"].error
    assert found["nan"].value is None and "nan" in found["nan"].error


def test_a_final_answer_is_compared_and_needs_one() -> None:
    rows = [
        Answered("right", "i", "6 * 7 = 42\n#### 42", "#### 42"),
        Answered("wrong", "i", "#### 41", "#### 42"),
        Answered("alone", "i", "#### 41"),
        Answered("plain", "i", "#### 42", "42"),
    ]
    found = scores(VerifierReward(checker="final_answer"), *rows)
    assert [found[key].value for key in ("right", "wrong", "alone", "plain")] == [1.0, 0.0, None, None]
    assert "no reference" in found["alone"].error and "no number behind ####" in found["plain"].error


def test_tasks_are_graded() -> None:
    found = scores(VerifierReward(), Answered("right", "i", "a b c", "a b c"), Answered("alone", "i", "a"))
    assert found["right"].value == 1.0 and found["alone"].value is None


@pytest.mark.parametrize(
    "settings",
    [
        {"provider": "oracle"},
        {"provider": "classifier", "path": "a/b", "trust_remote_code": True},
        {"provider": "label_token", "path": "a/b", "template": "{response} "},
        {"provider": "label_token", "path": "a/b", "positive": "-"},
        {"provider": "judge", "model": SCRIPTED, "rubric": "How good is {response}?"},
        {"provider": "judge", "model": SCRIPTED, "low": 5, "high": 5},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[AnyReward](AnyReward).validate_python(settings)
