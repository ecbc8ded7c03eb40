"""Settings of a COMET metric."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from squadron.core.config import Config, operational
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import Model


class CometMetric(Config):
    """A published COMET checkpoint: a regression, a unified metric such as CometKiwi, or XCOMET."""

    kind: Literal["comet"] = "comet"
    name: str = Field("comet", min_length=1)
    path: Annotated[InputPath, Model("comet")] = Field(
        InputPath("Unbabel/wmt22-comet-da"), description="name on the hub, or a folder with hparams.yaml and weights"
    )
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    reference: bool = Field(True, description="whether a model that can do without reads references")
    half: bool = Field(False, description="encoder in half precision on a card: half of its memory, nearly its scores")
    tokens_at_once: int = operational(8192, ge=16, description="in a batch, with padding")
