"""A tokenizer trained on a job's own texts, for models that start from scratch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

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
