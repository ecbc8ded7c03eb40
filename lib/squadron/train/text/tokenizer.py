"""A tokenizer trained on a job's own texts, for models that start from scratch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from squadron.core.errors import InputError, SquadronError
from squadron.core.folder import Folder
from squadron.train.models.builders import local_folder
from squadron.train.models.errors import explaining_load_errors

_FIX = "give a hub name (organisation/model) or a folder with a model and its tokenizer"
PAD, END, TURN = "<|pad|>", "<|end|>", "<|turn|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|turn|>' + message['role'] + '\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int, folder: Path) -> int:
    """Train a byte-level BPE tokenizer in which every digit is a token, save it as transformers loads it, and return
    its number of tokens. Any text can be encoded; `vocabulary` counts the 256 bytes and three special tokens too.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END, TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, padding_side="left")
    fast.chat_template = _CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return len(fast)


def store_tokenizer(texts: Iterable[str], vocabulary: int, folder: Folder, name: str = "tokenizer") -> str:
    """Train a tokenizer into a folder that may stand behind any URL; the path that it loads from."""
    with tempfile.TemporaryDirectory() as scratch:
        train_tokenizer(texts, vocabulary, Path(scratch))
        for file in sorted(Path(scratch).iterdir()):
            folder.put(f"{name}/{file.name}", str(file))
    return folder.file(name)


def added_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What a tokenizer puts before and behind a text by itself: a begin-of-text token or none, BERT's `[CLS]` and
    `[SEP]`."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    places = (place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
    start = next(places, None)
    if start is None:
        return [], []
    return whole[:start], whole[start + len(bare) :]


def load_tokenizer(path: str, who: str = "the model", kind: type[SquadronError] = InputError, **options: Any) -> Any:
    """The tokenizer of a model at a hub name, a folder or a URL; no code that comes with it is run. `who` is what the
    user calls the model.

    Raises an error of this kind if there is none that can be loaded.
    """
    from transformers import AutoTokenizer

    with explaining_load_errors(path, f"the tokenizer of {who}", kind, fix=_FIX):
        return AutoTokenizer.from_pretrained(local_folder(path), trust_remote_code=False, **options)
