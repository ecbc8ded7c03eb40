"""Reward models by transformers, in this process: sequence classifiers, and language models that say a label.

Both load safetensors only, and run no code that comes with a model. B conversations of a batch, T tokens, K places of
the batch where a label is read, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from squadron.core.blanks import fill_in
from squadron.core.work import take_turns
from squadron.llm.backends.batches import in_batches
from squadron.llm.backends.layers import take_turns_between_layers
from squadron.llm.chat import Closing, ModelUnavailable
from squadron.llm.rewards.reward import Answered, RewardModel, Score, scored
from squadron.llm.rewards.settings import ClassifierReward, CrossEncoderReward, LabelTokenReward, LocalReward
from squadron.train.models.builders import Head, auto_class, local_folder
from squadron.train.models.errors import explaining_load_errors
from squadron.train.objectives.layout import padded
from squadron.train.text.conversations import prompt_text, token_ids

if TYPE_CHECKING:
    import torch

Row = TypeVar("Row")
Value = TypeVar("Value")
_PLAIN = "{instruction}\n{response} "
"""What is filled in where neither the settings nor the tokenizer have a template."""


def open_classifier(settings: ClassifierReward) -> RewardModel:
    """A sequence classifier with one output, which reads conversations; the score is that output.

    Raises ModelUnavailable if it cannot be loaded, or is no such classifier.
    """
    return _open_one_output(settings, lambda tokenizer, _: partial(_conversation, tokenizer))


def open_cross_encoder(settings: CrossEncoderReward) -> RewardModel:
    """A sequence classifier with one output, which reads instruction and response as a pair of texts; of a pair that is
    too long the longer text is cut. The score is that output.

    Raises ModelUnavailable if it cannot be loaded, or is no such classifier.
    """
    return _open_one_output(settings, lambda tokenizer, longest: partial(_pair, tokenizer, longest))


def _open_one_output(settings: LocalReward, encoder: Callable[[Any, int], Callable[[Answered], Any]]) -> RewardModel:
    """`encoder` makes of a tokenizer, and of how many tokens the model reads, what encodes a row."""
    model, tokenizer, missing = load_head("sequence", settings)
    fix = "give a reward model: a sequence classifier with one output"
    if model.config.num_labels != 1:
        labels = ", ".join(str(label) for label in model.config.id2label.values())
        what = f"the classifier has {model.config.num_labels} outputs: {labels}"
        raise ModelUnavailable(what, where=settings.path, fix=fix)
    refuse_untrained(settings, missing, fix)
    # Decoders take the score at the last token that is not padding; without a padding token, at the very last one.
    pads = model.config.pad_token_id is not None
    if pads:
        tokenizer.pad_token_id = model.config.pad_token_id
    longest = tokens_read(settings, model, tokenizer)
    return _InBatches(
        encode=encoder(tokenizer, longest),
        values=partial(_outputs, model, tokenizer, pads),
        longest=longest,
        batch_size=settings.batch_size if pads else 1,
    )


def open_label_token(settings: LabelTokenReward) -> RewardModel:
    """A causal language model that says one of two labels next; the score is P(positive) / (P(positive) + P(negative)),
    as process reward models trained on PRM800K are read (arXiv 2503.03746). With one label it is that one's logit.

    Raises ModelUnavailable if it cannot be loaded, or a label is not a single token.
    """
    model, tokenizer, missing = load_head("causal", settings)
    refuse_untrained(settings, missing, "give a causal language model")
    labels = _label_ids(settings, tokenizer)
    longest = tokens_read(settings, model, tokenizer)
    encode = partial(_up_to_label, tokenizer, settings.template)
    return _InBatches(
        encode=partial(_cut, tokenizer, longest, encode) if settings.cut else encode,
        values=partial(_label_values, model, labels),
        longest=longest,
        batch_size=settings.batch_size,
    )


def by_length(
    rows: Sequence[Row],
    encode: Callable[[Row], Any],
    values: Callable[[Sequence[Any]], Sequence[Value]],
    longest: int,
    batch_size: int,
) -> Iterator[tuple[Row, Value | None, str]]:
    """Each row with its value, or with why it has none: in batches of similar length through `values`, which are halved
    where memory runs out.

    `encode` turns a row into what holds its tokens as `input_ids`; `longest` is how many of them the model reads.
    """
    fitting: list[tuple[Row, Any]] = []
    for row in rows:
        take_turns()
        encoded = encode(row)
        if (count := len(encoded["input_ids"])) > longest:
            yield row, None, f"the row has {count:,} tokens, the reward model reads {longest:,}"
        elif count == 0:
            yield row, None, "the row has no text"
        else:
            fitting.append((row, encoded))
    ordered = sorted(fitting, key=lambda pair: len(pair[1]["input_ids"]))
    for (row, _), value, error in in_batches(ordered, lambda batch: values([one for _, one in batch]), batch_size):
        yield row, value, error


class _InBatches(Closing):
    """Scores rows by `by_length`, of values that are the same in any batch."""

    def __init__(
        self,
        encode: Callable[[Answered], Any],
        values: Callable[[Sequence[Any]], list[float]],
        longest: int,
        batch_size: int,
    ) -> None:
        self._encode, self._values = encode, values
        self._longest, self._batch_size = longest, batch_size

    def score(self, rows: Sequence[Answered]) -> Iterator[Score]:
        for row, value, error in by_length(rows, self._encode, self._values, self._longest, self._batch_size):
            yield Score(row.key, None, error) if value is None else scored(row.key, value)

    def close(self) -> None:
        import torch

        del self._values
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def load_head(head: Head, settings: LocalReward) -> tuple[Any, Any, list[str]]:
    """The model on its device or cards, its tokenizer, and the names of the weights that its files lack.

    Raises ModelUnavailable if it cannot be loaded, ResourceError if the cards do not hold it.
    """
    from squadron.train.library_setup import quiet_libraries

    quiet_libraries()
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from squadron.train.models.attention import keep_cap
    from squadron.train.models.spread import card_memory, spread

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    named: dict[str, Any] = {"fp32": torch.float32, "bf16": torch.bfloat16}
    dtype = named.get(settings.precision, "auto" if device.type == "cuda" else torch.float32)
    options: dict[str, Any] = {"revision": settings.revision, "trust_remote_code": False}
    path = local_folder(settings.path)
    cards = card_memory(settings.gpus) if settings.gpus > 1 else {}
    with explaining_load_errors(settings.path, kind=ModelUnavailable):
        placed: Any = None
        if cards:
            config = AutoConfig.from_pretrained(path, **options)
            stored = getattr(config, "dtype", None) or torch.float32
            placed = spread(config, head, cards, stored if dtype == "auto" else dtype, settings.path)
        model, loading = auto_class(head).from_pretrained(
            path, dtype=dtype, use_safetensors=True, output_loading_info=True, device_map=placed, **options
        )
        # Right padding: position numbers then begin at the first token, alone and in a batch.
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="right", **options)
    model = keep_cap(model).eval() if placed else keep_cap(model).to(device).eval()
    return take_turns_between_layers(model), tokenizer, sorted(loading["missing_keys"])


def refuse_untrained(settings: LocalReward, missing: Sequence[str], fix: str) -> None:
    """Raise ModelUnavailable if there are weights that a model's files lack."""
    if missing:
        raise ModelUnavailable(f"the model has no weights for {', '.join(missing)}", where=settings.path, fix=fix)


def tokens_read(settings: LocalReward, model: Any, tokenizer: Any) -> int:
    """How many tokens of a row the model reads."""
    context = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return min(settings.max_length or context, context, tokenizer.model_max_length)


def _turns(row: Answered) -> list[dict[str, str]]:
    return [{"role": "user", "content": row.instruction}, {"role": "assistant", "content": row.response}]


def _conversation(tokenizer: Any, row: Answered) -> Any:
    if tokenizer.chat_template is None:
        return tokenizer(row.instruction, row.response)
    text = tokenizer.apply_chat_template(_turns(row), tokenize=False)
    return tokenizer(text, add_special_tokens=False)


def _pair(tokenizer: Any, longest: int, row: Answered) -> Any:
    return tokenizer(row.instruction, row.response, truncation="longest_first", max_length=longest)


def _outputs(model: Any, tokenizer: Any, pads: bool, batch: Sequence[Any]) -> list[float]:
    import torch

    inputs = tokenizer.pad(list(batch), padding=pads, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        return model(**inputs).logits[:, 0].float().tolist()


def _label_ids(settings: LabelTokenReward, tokenizer: Any) -> list[int]:
    """The tokens of the positive and, if there is one, of the negative label."""
    labels = [label for label in (settings.positive, settings.negative) if label is not None]
    found = {label: token_ids(tokenizer, label) for label in labels}
    if wrong := [label for label, ids in found.items() if len(ids) != 1 or ids[0] == tokenizer.unk_token_id]:
        pieces = "; ".join(f"{label!r} is {tokenizer.convert_ids_to_tokens(found[label])}" for label in wrong)
        fix = "set positive and negative to the tokens that the model was trained to say"
        raise ModelUnavailable(f"a label must be one token: {pieces}", where=settings.path, fix=fix)
    return [found[label][0] for label in labels]


def _up_to_label(tokenizer: Any, template: str | None, row: Answered) -> dict[str, list[int]]:
    """The tokens that a row's label follows."""
    if template is None and tokenizer.chat_template is not None:
        return {"input_ids": token_ids(tokenizer, prompt_text(tokenizer, _turns(row)))}
    text = fill_in(_PLAIN if template is None else template, instruction=row.instruction, response=row.response)
    ids, begin = token_ids(tokenizer, text), _begin(tokenizer)
    return {"input_ids": ids if ids[:1] == begin else begin + ids}


def _cut(
    tokenizer: Any, longest: int, encode: Callable[[Answered], dict[str, list[int]]], row: Answered
) -> dict[str, list[int]]:
    """The tokens of a row, whose response loses as many at its end as are too many."""
    while (over := len((encoded := encode(row))["input_ids"]) - longest) > 0 and row.response:
        pieces = tokenizer(row.response, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        end = min(pieces[-over][0], len(row.response) - 1) if over < len(pieces) else 0
        row = replace(row, response=row.response[:end])
    return encoded


def _begin(tokenizer: Any) -> list[int]:
    """The token that this tokenizer begins texts with. Whatever it ends them with would stand before the label."""
    first: list[int] = tokenizer.encode("a")[:1]
    return first if first == [tokenizer.bos_token_id] else []


def _label_values(model: Any, labels: Sequence[int], batch: Sequence[dict[str, list[int]]]) -> list[float]:
    """P(positive) / (P(positive) + P(negative)) of the token that follows each text; of one label, its logit."""
    import torch

    # Padding stands on the right, where a causal model does not see it from the last token of a text.
    ids_BT, mask_BT = (tensor.to(model.device) for tensor in padded([encoded["input_ids"] for encoded in batch]))
    places_K, place_B = (mask_BT.sum(1) - 1).unique(return_inverse=True)
    with torch.inference_mode():
        # Only where some text of the batch ends: all of (B, T, V) would not fit into memory.
        logits_BKV: torch.Tensor = model(
            input_ids=ids_BT, attention_mask=mask_BT, use_cache=False, logits_to_keep=places_K
        ).logits
        positive_B, *negative = logits_BKV[torch.arange(len(batch)), place_B][:, list(labels)].float().unbind(1)
        value_B = torch.sigmoid(positive_B - negative[0]) if negative else positive_B
        values: list[float] = value_B.tolist()
    return values
