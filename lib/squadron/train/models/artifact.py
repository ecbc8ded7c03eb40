"""A language model with its tokenizer, as stages hand it on to each other."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from squadron.core.artifacts import Artifact
from squadron.core.folder import Folder
from squadron.core.inputs import InputPath
from squadron.train.models.builders import Pretrained
from squadron.train.spec import LoraSettings, TrainSpec
from squadron.train.text.tokenizer import load_tokenizer


class ModelArtifact(Artifact):
    """A model with its tokenizer: found at `source`, a hub name or a folder of the user's; or else in a folder of this
    run. An adapter names the model that it belongs over."""

    path: str = ""
    source: InputPath | None = None
    name: str = Field("", description="what reports call it")
    revision: str = Field("", description="commit of the hub")
    parameters: int | None = None
    context: int = Field(2**20, description="tokens that it reads at most")
    pad_token_id: int = 0
    adapter_of: ModelArtifact | None = None
    chat_template: str = Field("", description="in place of the tokenizer's own")
    rows: int | None = Field(None, description="rows that its embedding gets when it is loaded; None: those it has")

    def locate(self, run: Folder) -> str:
        """What transformers loads it by. Raises InputError if its files in the run are not what was written."""
        return super().locate(run) if self.source is None else str(self.source)

    def load_tokenizer(self, run: Folder) -> Any:
        """Its tokenizer. Raises InputError if it cannot be loaded."""
        tokenizer = load_tokenizer(self.locate(run), self.name or "the model")
        if self.chat_template:
            tokenizer.chat_template = self.chat_template
        return tokenizer

    def build(self, run: Folder, spec: TrainSpec, lora: LoraSettings | None = None, **more: Any) -> Pretrained:
        """What makes it on a worker, to be trained by these settings."""
        settings: dict[str, Any] = {"precision": spec.precision, "fused": spec.fused_kernels, "rows": self.rows}
        return Pretrained(self.locate(run), lora=lora, **settings | more)
