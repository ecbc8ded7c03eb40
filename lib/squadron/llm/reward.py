"""How good an answer is: by a reward model, a chat model as judge, a checker, or a column that says so.

model = open_reward(settings, open_model)
for score in model.score([Answered("1", "What is 6 times 7?", "42")]):
    print(score.error or score.value)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, field_validator, model_validator

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.llm.chat import ChatModel, ChatRequest, Closing, ModelUnavailable, Sampling, user
from squadron.llm.embed import cannot_load
from squadron.llm.settings import AnyModel
from squadron.llm.structured import Unreadable, read_number

RUBRIC = """\
You judge how well a response follows an instruction: whether it is right, complete, clear, and no longer than it needs
to be. Say in a few sentences what speaks for and against it. Then end with a line of its own, "Score: " and a number
between {low} (useless) and {high} (nothing to be mended).

### Instruction
{instruction}

### Response
{response}"""
_BLANK = re.compile(r"\{(instruction|response|reference|low|high)\}")


class ClassifierReward(Config):
    """A sequence classifier with one output, as reward models are published, by transformers."""

    provider: Literal["classifier"] = "classifier"
    path: str
    revision: str | None = None
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    batch_size: int = Field(16, ge=1, description="conversations scored together")
    max_length: int | None = Field(None, ge=2, description="tokens; a longer row is an error; None: the model's own")


class JudgeReward(Config):
    """A chat model that is asked for a number."""

    provider: Literal["judge"] = "judge"
    model: AnyModel
    rubric: str = Field(RUBRIC, description="holds {instruction}, {response}; may hold {reference}, {low}, {high}")
    low: float = Field(1.0, allow_inf_nan=False)
    high: float = Field(10.0, allow_inf_nan=False)
    sampling: Sampling = Sampling(max_tokens=1024)

    @field_validator("rubric")
    @classmethod
    def _asks_about_the_answer(cls, value: str) -> str:
        if missing := {"instruction", "response"} - set(_BLANK.findall(value)):
            raise ValueError(f"a rubric needs {' and '.join(f'{{{name}}}' for name in sorted(missing))}")
        return value

    @model_validator(mode="after")
    def _scale_has_a_length(self) -> JudgeReward:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


class ColumnReward(Config):
    """The score that came with the answer."""

    provider: Literal["column"] = "column"


class VerifierReward(Config):
    """A comparison with the reference answer, between 0 and 1."""

    provider: Literal["verifier"] = "verifier"
    checker: Literal["tasks", "final_answer"] = Field("tasks", description="final_answer: the number behind ####")


AnyReward = Annotated[ClassifierReward | JudgeReward | ColumnReward | VerifierReward, Field(discriminator="provider")]


@dataclass(frozen=True, slots=True)
class Answered:
    """An instruction and a response to it. `key` names it to whoever asked; `score` is one that came with it."""

    key: str
    instruction: str
    response: str
    reference: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """What became of a row: a finite value, or in `error` why there is none. `cost_usd` was paid either way."""

    key: str
    value: float | None
    error: str = ""
    cost_usd: float = 0.0


class RewardModel(Protocol):
    """What scores answers; higher is better."""

    def score(self, rows: Sequence[Answered]) -> Iterator[Score]:
        """Score every row once, in the order of completion. What goes wrong with one row is told in its score."""

    def close(self) -> None:
        """Let go of connections and memory."""


def open_reward(settings: AnyReward, open_model: Callable[[AnyModel], ChatModel]) -> RewardModel:
    """The reward model of these settings, loaded; `open_model` opens a judge's chat model.

    Raises ModelUnavailable or ConfigError if it cannot be used.
    """
    match settings:
        case ClassifierReward():
            return _Classifier(settings)
        case JudgeReward():
            return _Judge(settings, open_model(settings.model))
        case ColumnReward():
            return _RowByRow(_from_column)
        case VerifierReward(checker="tasks"):
            return _RowByRow(_by_tasks)
        case VerifierReward():
            return _RowByRow(_by_final_answer)


def _scored(key: str, value: float) -> Score:
    return Score(key, value) if math.isfinite(value) else Score(key, None, f"the score is {value}, no finite number")


class _RowByRow(Closing):
    """What computes one row's value without another's, and raises InputError where it cannot."""

    def __init__(self, value: Callable[[Answered], float]) -> None:
        self._value = value

    def score(self, rows: Sequence[Answered]) -> Iterator[Score]:
        for row in rows:
            try:
                yield _scored(row.key, self._value(row))
            except InputError as error:
                yield Score(row.key, None, error.what)


def _from_column(row: Answered) -> float:
    if row.score is None:
        raise InputError("the input has no score for this answer")
    return row.score


def _by_tasks(row: Answered) -> float:
    from squadron.data.tasks import grade

    return float(grade(row.response, _reference(row)))


def _by_final_answer(row: Answered) -> float:
    from squadron.data.arithmetic import MARKER, final_answer, is_correct

    reference = _reference(row)
    if final_answer(reference) is None:
        raise InputError(f"the reference answer has no number behind {MARKER}")
    return float(is_correct(row.response, reference))


def _reference(row: Answered) -> str:
    if row.reference is None:
        raise InputError("there is no reference answer to compare with")
    return row.reference


class _Judge(Closing):
    """Asks a chat model about every row. A verdict that cannot be read is an error, never a low score."""

    def __init__(self, settings: JudgeReward, model: ChatModel) -> None:
        self._settings, self._model = settings, model

    def score(self, rows: Sequence[Answered]) -> Iterator[Score]:
        asked: dict[str, Answered] = {}
        for number, row in enumerate(rows):
            if row.reference is None and "{reference}" in self._settings.rubric:
                yield Score(row.key, None, "the rubric holds {reference}, but there is no reference answer")
            else:
                asked[str(number)] = row
        requests = (
            ChatRequest(number, user(self._question(row)), self._settings.sampling) for number, row in asked.items()
        )
        for reply in self._model.chat(requests):
            key = asked[reply.key].key
            if not reply.ok:
                yield Score(key, None, f"the judge failed: {reply.error}", reply.cost_usd)
            elif reply.finish_reason == "length":
                error = f"the verdict is cut off after {reply.completion_tokens:,} tokens; raise sampling.max_tokens"
                yield Score(key, None, error, reply.cost_usd)
            else:
                try:
                    value = read_number(reply.text, self._settings.low, self._settings.high)
                    yield Score(key, value, cost_usd=reply.cost_usd)
                except Unreadable as error:
                    what = f"unreadable verdict: {error.what}, in {error.where}"
                    yield Score(key, None, what, reply.cost_usd)

    def close(self) -> None:
        self._model.close()

    def _question(self, row: Answered) -> str:
        # In one go, so that a response which holds "{reference}" is left as it is.
        low, high = f"{self._settings.low:g}", f"{self._settings.high:g}"
        blanks = {"instruction": row.instruction, "response": row.response, "low": low, "high": high}
        blanks["reference"] = row.reference or ""
        return _BLANK.sub(lambda blank: blanks[blank[1]], self._settings.rubric)


class _Classifier(Closing):
    """Batches of conversations through a sequence classifier; a score does not depend on the others of its batch."""

    def __init__(self, settings: ClassifierReward) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from squadron.train.models import local_folder
        from squadron.train.quiet import quiet_libraries

        quiet_libraries()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        named: dict[str, Any] = {"fp32": torch.float32, "bf16": torch.bfloat16}
        dtype = named.get(settings.precision, "auto" if self._device.type == "cuda" else torch.float32)
        path, options = local_folder(settings.path), {"revision": settings.revision, "trust_remote_code": False}
        try:
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                path, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
            )
            # Right padding: position numbers then begin at the first token, alone and in a batch.
            self._tokenizer = AutoTokenizer.from_pretrained(path, padding_side="right", **options)
        except (OSError, ValueError, ImportError) as error:
            raise cannot_load(settings.path, error) from error
        _refuse_no_reward_model(settings.path, model.config, sorted(loading["missing_keys"]))
        self._model = model.to(self._device).eval()
        context = getattr(model.config, "max_position_embeddings", None) or self._tokenizer.model_max_length
        self._longest = min(settings.max_length or context, context, self._tokenizer.model_max_length)
        # Decoders take the score at the last token that is not padding; without a padding token, at the very last one.
        self._pads = model.config.pad_token_id is not None
        if self._pads:
            self._tokenizer.pad_token_id = model.config.pad_token_id
        self._batch_size = settings.batch_size if self._pads else 1

    def score(self, rows: Sequence[Answered]) -> Iterator[Score]:
        fitting: list[tuple[Answered, Any]] = []
        for row, encoded in zip(rows, map(self._encode, rows), strict=True):
            if (count := len(encoded["input_ids"])) <= self._longest:
                fitting.append((row, encoded))
            else:
                yield Score(row.key, None, f"the row has {count:,} tokens, the reward model reads {self._longest:,}")
        by_length = iter(sorted(fitting, key=lambda pair: len(pair[1]["input_ids"])))
        while batch := list(islice(by_length, self._batch_size)):
            values = self._values([encoded for _, encoded in batch])
            yield from (_scored(row.key, value) for (row, _), value in zip(batch, values, strict=True))

    def close(self) -> None:
        import torch

        del self._model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _encode(self, row: Answered) -> Any:
        if self._tokenizer.chat_template is None:
            return self._tokenizer(row.instruction, row.response)
        turns = [{"role": "user", "content": row.instruction}, {"role": "assistant", "content": row.response}]
        text = self._tokenizer.apply_chat_template(turns, tokenize=False)
        return self._tokenizer(text, add_special_tokens=False)

    def _values(self, batch: Sequence[Any]) -> list[float]:
        import torch

        inputs = self._tokenizer.pad(list(batch), padding=self._pads, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            return self._model(**inputs).logits[:, 0].float().tolist()


def _refuse_no_reward_model(path: str, config: Any, missing: Sequence[str]) -> None:
    fix = "give a reward model: a sequence classifier with one output"
    if config.num_labels != 1:
        labels = ", ".join(str(label) for label in config.id2label.values())
        raise ModelUnavailable(f"the classifier has {config.num_labels} outputs: {labels}", where=path, fix=fix)
    if missing:
        raise ModelUnavailable(f"the model has no weights for {', '.join(missing)}", where=path, fix=fix)
