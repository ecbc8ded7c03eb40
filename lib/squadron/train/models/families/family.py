"""What tells the families of published models apart: architecture, special tokens, chat template and tokenizer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

Splitting = Literal["gpt2", "llama3", "qwen", "o200k", "digits", "gemma", "sentencepiece", "unigram", "wordpiece"]
"""How a tokenizer cuts a text before it merges pieces: by a regular expression over bytes, by spaces with bytes for
unknown characters (gemma, sentencepiece), or as encoders do."""


@dataclass(frozen=True)
class Family:
    """Models that share an architecture, special tokens and a chat template.

    `eos` is the end of a text in the tokenizer of the chat models, `base_eos` in that of the base models; None if they
    are the same. `stops` are what the chat models' generation configuration ends at. `hubs` are regular expressions
    of names on the hub.
    """

    name: str
    hubs: tuple[str, ...]
    model_type: str
    splitting: Splitting
    eos: str
    stops: tuple[str, ...] = ()
    base_eos: str | None = None
    bos: str | None = None
    pad: str | None = None
    unk: str | None = None
    cls: str | None = None
    sep: str | None = None
    mask: str | None = None
    specials: tuple[str, ...] = field(default=(), repr=False)
    words: tuple[str, ...] = field(default=(), repr=False)  # added tokens that are shown, such as <think>
    template: str | None = None  # a file of TRL's
    chat_names: str = ""  # a regular expression; "": all but those that end in -base
    base_chats: bool = False
    adds_bos: bool = False
    tied: bool = False
    stretched: int = 0  # how many times the context that positions were first trained on
    layer_kinds: tuple[str, str] | None = None  # of all layers but the last, and of that
    tokenizer_class: str = "PreTrainedTokenizerFast"
    fields: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def chats(self) -> bool:
        """Whether its models hold conversations."""
        return self.template is not None

    @property
    def encodes(self) -> bool:
        """Whether its models read texts from both sides and write none."""
        return self.splitting in ("wordpiece", "unigram")

    def is_base(self, hub_name: str) -> bool:
        """Whether a model of the family with this name on the hub is a base model, not yet tuned for chat."""
        name = hub_name.rpartition("/")[2].lower()
        return not re.search(self.chat_names, name) if self.chat_names else bool(re.search(r"-base$|-pt$", name))

    def tokens(self) -> list[str]:
        """All special tokens, each once."""
        named = (self.pad, self.bos, self.eos, self.base_eos, self.unk, self.cls, self.sep, self.mask)
        every = [token for token in named if token is not None]
        return list(dict.fromkeys([*every, *self.stops, *self.specials]))
