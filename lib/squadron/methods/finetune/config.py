"""Settings of a fine-tuning run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from squadron.core.blanks import check_blanks
from squadron.core.config import Config, operational
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import AtMost, Model, StandIns
from squadron.data.record_files import RecordsPath
from squadron.train.models.builders import FromConfig
from squadron.train.models.families import FAMILIES
from squadron.train.models.random_init import SmallModelConfig
from squadron.train.spec import LoraSettings, OptimizerConfig, TrainSpec

ObjectiveName = Literal["sft", "dpo", "reward", "process_reward", "classification"]


class ColumnsConfig(Config):
    """Which column holds what. An objective reads those that it needs."""

    prompt: str | None = Field(
        "prompt", description="text or a list of messages; null: it is the beginning that chosen and rejected share"
    )
    completion: str = Field("completion", description="text or a list of messages")
    messages: str | None = Field(None, description="a conversation, in place of prompt and completion (sft)")
    tools: str | None = Field("tools", description="what a conversation may call, in records that have it")
    system: str | None = Field(None, description="a system prompt, beside prompts and conversations that have none")
    text: str | None = Field(None, description="whole texts, in place of prompt and completion (sft, classification)")
    chosen: str = Field("chosen", description="text or a list of messages (dpo, reward)")
    rejected: str = Field("rejected", description="text or a list of messages (dpo, reward)")
    steps: str = Field("steps", description="a list of reasoning steps (process_reward)")
    labels: str = Field("labels", description="whether each step is right (process_reward)")
    label: str = Field("label", description="the class (classification)")


class ArithmeticConfig(Config):
    """Word problems by rule, where no data is given."""

    problems: Annotated[int, AtMost(64)] = Field(20_000, ge=10)
    fewest_steps: int = Field(2, ge=1)
    most_steps: int = Field(3, ge=1)
    largest: int = Field(99, ge=20, description="no number on the way is larger")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _steps_in_order(self) -> ArithmeticConfig:
        if self.fewest_steps > self.most_steps:
            raise ValueError(f"fewest_steps {self.fewest_steps} is more than most_steps {self.most_steps}")
        return self


class RecordsConfig(Config):
    """Which records there are, and which are held out."""

    path: RecordsPath | None = Field(
        None, description="a .jsonl, .jsonl.gz, .json or .parquet file, a folder, or a hub data set; None: arithmetic"
    )
    split: str = Field("train", description="of a hub data set")
    subset: str | None = Field(None, description="of a hub data set that has several, such as main of openai/gsm8k")
    arithmetic: ArithmeticConfig = ArithmeticConfig()
    columns: ColumnsConfig = ColumnsConfig()
    held_out: float = Field(0.02, ge=0, lt=1, description="share of the records that measures the held-out loss")
    held_out_most: int = Field(512, ge=1, description="records held out at most")
    seed: int = Field(0, ge=0, description="which records are held out")


class DataConfig(RecordsConfig):
    """What to learn from."""

    prompt_format: str = Field(
        "{prompt}", description="what a prompt is put into, in the place of {prompt}; other braces are text"
    )
    chat: bool = Field(False, description="put prompt and completion into the model's chat template")
    train_on: Literal["completion", "all"] = Field("completion", description="which tokens have a target (sft)")
    mask_history: bool = Field(False, description="only the last answer of a conversation is a target (sft)")
    end_of_sequence: bool = Field(True, description="end every completion; false for step-wise DPO")
    too_long: Literal["refuse", "cut", "leave_out"] = Field(
        "refuse", description="what to do with rows of more than training.max_length tokens, which are counted"
    )

    @field_validator("prompt_format")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        return check_blanks(value, ("prompt",))


class ScratchConfig(SmallModelConfig):
    """A Llama-architecture model with random weights, and a tokenizer trained on the data."""

    hidden_size: Annotated[int, AtMost(32)] = Field(192, ge=8)
    layers: Annotated[int, AtMost(2)] = Field(4, ge=1)
    heads: Annotated[int, AtMost(2)] = Field(6, ge=1)
    kv_heads: Annotated[int, AtMost(2)] = Field(2, ge=1)
    intermediate_size: Annotated[int, AtMost(64)] = Field(512, ge=8)
    vocabulary: Annotated[int, AtMost(400)] = Field(
        512, ge=300, description="tokens of the byte-level BPE tokenizer, at most"
    )
    context: int = Field(512, ge=8)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _kv_heads_divide(self) -> ScratchConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is no multiple of kv_heads {self.kv_heads}")
        return self

    @property
    def model(self) -> FromConfig:
        """What makes it, with a tokenizer of as many tokens as may be."""
        return FromConfig(**self.model_dump(exclude={"seed"}))


class StartConfig(Config):
    """Where training starts."""

    path: Annotated[InputPath | None, Model("causal")] = Field(
        None, description="a hub name or a local folder; None: from scratch"
    )
    scratch: ScratchConfig = ScratchConfig()
    chat_template: str | None = Field(
        None, description="in place of the tokenizer's own: a family of models, such as llama3.1, or a .jinja file"
    )
    resize_embeddings: bool = Field(
        False, description="give the embedding rows for tokens added to the tokenizer; under LoRA they stay as drawn"
    )

    @field_validator("chat_template")
    @classmethod
    def _family_or_file(cls, value: str | None) -> str | None:
        return value if value is None or value in FAMILIES else InputPath(value)


class ModelConfig(StartConfig):
    """What to train."""

    lora: LoraSettings | None = None
    reference: Annotated[InputPath | None, Model("causal")] = Field(
        None, description="DPO's reference model; None: the model as it begins"
    )


class DpoConfig(Config):
    beta: float = Field(0.1, gt=0, description="0.4 to 0.5 for step-wise DPO (Lai et al. 2024)")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    nll_weight: float = Field(0.0, ge=0, description="adds the chosen answer's own loss (Pang et al. 2024)")


class ExportConfig(Config):
    """What is left at the end."""

    merge: bool = Field(True, description="fold adapters into the model; false: the adapter alone")
    weights: Literal["last", "best", "average"] = Field("last", description="best: lowest held-out loss")
    verify: bool = Field(True, description="load the files in a process of their own and compare logits")


class SamplesConfig(Config):
    """Held-out prompts that the model answers before and after (sft, dpo)."""

    shown: Annotated[int, AtMost(2)] = operational(6, ge=0)
    scored: Annotated[int, AtMost(4)] = Field(
        0, ge=0, description="answers checked by the number behind `####`; 0: none"
    )
    max_new_tokens: Annotated[int, AtMost(16)] = Field(96, ge=1)
    batch_size: int = operational(32, ge=1)


class FinetuneConfig(Config):
    """A fine-tuning run."""

    objective: ObjectiveName = "sft"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    dpo: DpoConfig = DpoConfig()
    training: TrainSpec = TrainSpec(
        batch_size=32, micro_batch_size=32, max_length=192, optimizer=OptimizerConfig(learning_rate=3e-3)
    )
    export: ExportConfig = ExportConfig()
    samples: SamplesConfig = SamplesConfig()

    @model_validator(mode="after")
    def _settings_agree(self) -> FinetuneConfig:
        if self.data.path is None and self.objective != "sft":
            raise ValueError(f"objective {self.objective} needs data.path: the built-in problems are for sft")
        if self.model.path is None and self.model.lora is not None:
            raise ValueError("model.lora needs model.path: a model from scratch has nothing to adapt")
        if (
            self.model.path is None
            and self.training.max_length
            and self.training.max_length > self.model.scratch.context
        ):
            raise ValueError(
                f"training.max_length {self.training.max_length} is more than model.scratch.context "
                f"{self.model.scratch.context}"
            )
        if self.model.resize_embeddings and self.model.lora is not None and not self.export.merge:
            raise ValueError("model.resize_embeddings with model.lora needs export.merge: an adapter has no embedding")
        if self.training.packing and self.objective not in ("sft", "dpo"):
            raise ValueError(f"training.packing is for sft and dpo, not {self.objective}")
        if self.export.weights == "average" and self.training.ema_decay is None:
            raise ValueError("export.weights: average needs training.ema_decay")
        if self.export.weights == "best" and not self.training.checkpoint.keep_best:
            raise ValueError("export.weights: best needs training.checkpoint.keep_best")
        return self

    def rehearse(self, stand_ins: StandIns) -> FinetuneConfig:
        """On the first rows of the user's file."""
        if self.data.path is None:
            return self
        from squadron.methods.finetune.rehearsal import made_up

        columns = self.data.columns.model_dump()
        rows = stand_ins.rows(self.data.path, self.data.split, lambda: made_up(self.objective, columns))
        return self.model_copy(update={"data": self.data.model_copy(update={"path": rows})})
