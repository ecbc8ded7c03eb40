"""The stages of a fine-tuning run, in the order of `jobs/finetune.py`."""

from squadron.methods.finetune.base import prepare_model
from squadron.methods.finetune.dataset import encode, read_data
from squadron.methods.finetune.samples import compare
from squadron.methods.finetune.training import export, train

__all__ = ["compare", "encode", "export", "prepare_model", "read_data", "train"]
