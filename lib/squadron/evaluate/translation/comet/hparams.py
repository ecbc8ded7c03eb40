"""What a COMET checkpoint says that its network is: `hparams.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from squadron.core.errors import InputError

Kind = Literal["regression_metric", "referenceless_regression_metric", "unified_metric", "xcomet_metric"]
Part = Literal["mt", "src", "ref"]
_FILE = "hparams.yaml"
_DEFAULTS: dict[str, dict[str, Any]] = {
    "regression_metric": {},
    "referenceless_regression_metric": {"hidden_sizes": (1024,)},
    "unified_metric": {"layer_transformation": "sparsemax"},
    "xcomet_metric": {
        "layer_transformation": "sparsemax",
        "layer_norm": False,
        "word_layer": 36,
        "error_labels": ("minor", "major", "critical"),
    },
}
"""Of the classes of COMET 2.2, where a file is silent and they differ."""


class Hyperparameters(BaseModel):
    """Those that decide what a checkpoint computes; how it was trained is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    class_identifier: Kind
    encoder_model: Literal["XLM-RoBERTa", "XLM-RoBERTa-XL"] = "XLM-RoBERTa"
    pretrained_model: str
    layer: Literal["mix"] | int = "mix"
    layer_transformation: Literal["softmax", "sparsemax", "sparsemax_patch"] = "softmax"
    layer_norm: bool = True
    pool: Literal["avg", "max", "cls"] = "avg"
    hidden_sizes: tuple[int, ...] = Field((3072, 1024), min_length=1)
    activations: Literal["Tanh", "Sigmoid", "ReLU", "GELU"] = "Tanh"
    final_activation: Literal["Tanh", "Sigmoid", "ReLU", "GELU"] | None = None
    input_segments: tuple[Part, ...] = ("mt", "src", "ref")
    word_level_training: bool = False
    word_layer: int = 24
    error_labels: tuple[str, ...] = ("minor", "major")

    @property
    def joins(self) -> bool:
        """Whether texts are read joined, not each by itself."""
        return self.class_identifier in ("unified_metric", "xcomet_metric")

    @property
    def scores_spans(self) -> bool:
        """Whether the score counts the errors that are tagged."""
        return self.class_identifier == "xcomet_metric"

    @property
    def labels(self) -> tuple[str, ...]:
        """What a token can be tagged as, after no error; none where the network tags nothing."""
        return self.error_labels if self.word_level_training or self.scores_spans else ()

    @property
    def sparse(self) -> bool:
        """Whether layers are weighed by sparsemax. `sparsemax_patch` marks the checkpoints that say so and were trained
        with softmax all the same: https://github.com/Unbabel/COMET/issues/195."""
        return self.layer_transformation == "sparsemax"

    @property
    def reads(self) -> tuple[Part, ...]:
        """What it can use of a segment."""
        match self.class_identifier:
            case "regression_metric" | "xcomet_metric":
                return ("mt", "src", "ref")
            case "referenceless_regression_metric":
                return ("mt", "src")
            case _:
                return self.input_segments

    @property
    def needs_reference(self) -> bool:
        """Whether it has no score without one."""
        return self.class_identifier == "regression_metric" or "src" not in self.reads


def read_hparams(folder: str | Path) -> Hyperparameters:
    """Read the hyperparameters of a checkpoint. Raises InputError where they are missing or of a network that is not
    read here."""
    import yaml

    place = Path(folder) / _FILE
    try:
        stated = yaml.safe_load(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        fix = f"give a folder with {_FILE} and checkpoints/model.ckpt, or such a name on the hub"
        raise InputError(f"a COMET checkpoint has a {_FILE}, and this has none", where=str(folder), fix=fix) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the file cannot be read: {error}", where=str(place)) from error
    if not isinstance(stated, dict):
        raise InputError("hyperparameters are a mapping, and this is none", where=str(place))
    kind = stated.get("class_identifier")
    known = {"layer": stated.get("sent_layer", stated.get("layer", "mix"))}
    if kind not in ("unified_metric", "xcomet_metric"):
        known = {"layer": stated.get("layer", "mix")}
    try:
        return Hyperparameters.model_validate({**_DEFAULTS.get(str(kind), {}), **stated, **known})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        fix = f"kinds that are read: {', '.join(_DEFAULTS)}, on XLM-RoBERTa or XLM-RoBERTa-XL"
        raise InputError(f"{name}: {first['msg']}", where=str(place), fix=fix) from error
