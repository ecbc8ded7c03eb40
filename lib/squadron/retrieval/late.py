"""Late interaction: a text is as many vectors as it has tokens, and each token of a query finds its best match.

    encoder = open_late_encoder(LateConfig(path="colbert-ir/colbertv2.0"))
    corpus = embed_tokens(stage, texts, encoder.config).open(stage.run.folder, encoder.config)
    late = Late(encoder, corpus)
    ranking = late.search(["convert euros to dollars"], k=10)

A checkpoint of ColBERTv2's format (Santhanam et al. 2022) is read as its authors do: a linear layer over BERT, markers
for queries and documents, queries padded with [MASK], punctuation of documents left out. Any other encoder gives the
vectors of its last layer, without markers and padding. Q queries, T tokens, D dimensions, B texts of a batch.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from squadron.core.artifacts import Artifact
from squadron.core.config import Config, fingerprint, operational
from squadron.core.errors import InputError, ResourceError
from squadron.core.folder import Folder, relative
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import Model
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.llm.chat import Closing, ModelUnavailable
from squadron.llm.providers import card_share
from squadron.retrieval.ranking import Ranking
from squadron.retrieval.rerank import reorder
from squadron.retrieval.token_vectors import TokenVectors, write_part

_QUERY, _DOCUMENT = "[unused0]", "[unused1]"
"""What ColBERTv2 marks texts with, behind [CLS]."""
_HEAD = "linear.weight"


class LateConfig(Config):
    """A ColBERT of the hub or of a local folder, or another encoder."""

    path: Annotated[InputPath, Model("encoder")]
    revision: str | None = None
    query_length: int = Field(32, ge=4, description="tokens of a query; ColBERT fills up with [MASK] to as many")
    document_length: int = Field(512, ge=4, description="tokens of a document, which is cut behind them")
    skip_punctuation: bool = Field(True, description="leave out vectors of punctuation in documents")
    batch_size: int = operational(32, ge=1, description="texts encoded together")


class LateEncoder(Closing):
    """A model that turns texts into token vectors of length 1."""

    def __init__(self, config: LateConfig) -> None:
        self.config = config
        self._model, self._tokenizer, self._head = _load(config)
        longest = getattr(self._model.config, "max_position_embeddings", None) or self._tokenizer.model_max_length
        self._longest = min(longest, self._tokenizer.model_max_length)
        known = self._tokenizer(list(string.punctuation), add_special_tokens=False)["input_ids"]
        self._skipped = [ids[0] for ids in known if ids] if config.skip_punctuation else []

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [Q, T, D]; without a ColBERT, rows beyond a query's tokens are zero."""
        length = min(self.config.query_length, self._longest)
        rows = self._vectors([self._ids(text, _QUERY, length) for text in texts], length if self._is_colbert else 0)
        queries_QTD = np.zeros((len(rows), max(map(len, rows), default=0), rows[0].shape[1] if rows else 0), np.float32)
        for row, vectors_TD in enumerate(rows):
            queries_QTD[row, : len(vectors_TD)] = vectors_TD
        return queries_QTD

    def documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """float16 [T, D] of each text."""
        length = min(self.config.document_length, self._longest)
        encoded = [self._ids(text, _DOCUMENT, length) for text in texts]
        rows = self._vectors(encoded)
        kept = [~np.isin(ids, self._skipped) if self._skipped else np.full(len(ids), True) for ids in encoded]
        return [row[keep if keep.any() else ~keep].astype(np.float16) for row, keep in zip(rows, kept, strict=True)]

    def close(self) -> None:
        import torch

        del self._model, self._head
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def _is_colbert(self) -> bool:
        return self._head is not None

    def _ids(self, text: str, marker: str, length: int) -> list[int]:
        if not self._is_colbert:
            ids: list[int] = self._tokenizer(text, truncation=True, max_length=length)["input_ids"]
            return ids
        first, *rest = self._tokenizer(text, truncation=True, max_length=length - 1)["input_ids"]
        return [first, self._tokenizer.convert_tokens_to_ids(marker), *rest]

    def _vectors(self, encoded: Sequence[list[int]], fill: int = 0) -> list[np.ndarray]:
        """float32 [T, D] of each sequence, those of like lengths together; filled up with [MASK] to `fill` tokens,
        which attend to the others and are not attended to, as in ColBERTv2."""
        from squadron.llm.backends.batches import in_batches

        order = sorted(range(len(encoded)), key=lambda place: len(encoded[place]))
        found: dict[int, np.ndarray] = {}
        for place, vectors_TD, error in in_batches(
            order, lambda batch: self._pass([encoded[place] for place in batch], fill), self.config.batch_size
        ):
            if vectors_TD is None:
                raise ResourceError(error, where=self.config.path, fix="lower document_length, or take a larger card")
            found[place] = vectors_TD
        return [found[place] for place in range(len(encoded))]

    def _pass(self, batch: Sequence[list[int]], fill: int) -> list[np.ndarray]:
        import torch
        from torch.nn.functional import linear, normalize

        from squadron.train.objectives.layout import padded

        ids_BT, mask_BT = (tensor.to(self._model.device) for tensor in padded(batch))
        padding = self._tokenizer.mask_token_id if fill else self._tokenizer.pad_token_id or 0
        if fill > ids_BT.shape[1]:
            more = fill - ids_BT.shape[1]
            ids_BT, mask_BT = (torch.nn.functional.pad(tensor, (0, more)) for tensor in (ids_BT, mask_BT))
        ids_BT = ids_BT.masked_fill(mask_BT == 0, padding)
        with torch.inference_mode():
            states_BTD = self._model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
            if self._head is not None:
                states_BTD = linear(states_BTD, self._head)
            vectors_BTD = normalize(states_BTD.float(), dim=-1).cpu().numpy()
        return [row[: max(len(ids), fill)] for row, ids in zip(vectors_BTD, batch, strict=True)]


class Late:
    """The token vectors of a corpus with the model that made them: a `Searcher`."""

    def __init__(self, encoder: LateEncoder, corpus: TokenVectors) -> None:
        self._encoder, self._corpus = encoder, corpus

    def search(self, queries: Sequence[str], k: int) -> Ranking:
        """The `k` best documents of each query among all, exactly."""
        return self._corpus.search(self._encoder.queries(queries), k)

    def rerank(self, queries: Sequence[str], ranking: Ranking, depth: int = 100) -> Ranking:
        """The first `depth` documents of each query in the order of late interaction, then the others."""
        queries_QTD = self._encoder.queries(queries)
        scores = []
        for query_TD, places in zip(queries_QTD, ranking.places_QK[:, :depth], strict=True):
            scores.append(self._corpus.score(query_TD, places[places >= 0].tolist()).tolist())
        return reorder(ranking, scores)


class TokenFiles(Artifact):
    """Token vectors that a stage has written, in these parts; `model` stands for what decides them."""

    parts: tuple[str, ...]
    documents: int
    model: str

    def open(self, run: Folder, config: LateConfig) -> TokenVectors:
        """The vectors. Raises InputError if they are not what was written, or are of another model."""
        if self.model != fingerprint(config):
            raise InputError("these token vectors are of another model", where=self.path, fix="encode the corpus again")
        self.locate(run)
        return TokenVectors(run / self.path, self.parts)


def open_late_encoder(config: LateConfig) -> LateEncoder:
    """The model, loaded. Raises ModelUnavailable if it cannot be used."""
    return LateEncoder(config)


def embed_tokens(
    stage: Stage, texts: Sequence[str], config: LateConfig, *, chunk: int = 256, timeout_s: float = 3600.0
) -> TokenFiles:
    """Encode a corpus on the cluster, `chunk` documents at a time, into the folder of the stage. A chunk that was
    written before a kill is not encoded again. Raises ResourceError if one cannot be encoded."""
    model, rows = fingerprint(config), []
    for start in range(0, len(texts), chunk):
        some = list(texts[start : start + chunk])
        rows.append({"id": hashlib.sha256(json.dumps([model, some]).encode()).hexdigest()[:32], "texts": some})
    distinct = list({row["id"]: row for row in rows}.values())
    folder = stage.folder / "tokens"
    share = card_share(stage.run.profile, None)
    done = map_rows(
        stage, distinct, _EncodeChunk, unit="chunk", timeout_s=timeout_s, resources=share, batch_size=1,
        config=config, target=folder,
    )  # fmt: skip
    if len(done) < len(distinct):
        what = f"{len(distinct) - len(done):,} of {len(distinct):,} chunks of documents could not be encoded"
        fix = "correct the cause and give the same command: what is encoded stays"
        raise ResourceError(what, where=stage.failures()[-1]["error"], fix=fix)
    where = relative(folder, stage.run.folder)
    parts = tuple(str(row["id"]) for row in rows)
    return TokenFiles.of(stage.run.folder, where, parts=parts, documents=len(texts), model=model)


class _EncodeChunk:
    """A worker that encodes chunks of a corpus."""

    def __init__(self, config: LateConfig, target: Folder) -> None:
        self._encoder, self._target = open_late_encoder(config), target

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"tokens": write_part(self._target, row["id"], self._encoder.documents(row["texts"]))}


def _load(config: LateConfig) -> tuple[Any, Any, Any]:
    """The encoder on its device, its tokenizer, and the weights of a ColBERT's linear layer, None where it has none."""
    from squadron.train.library_setup import quiet_libraries

    quiet_libraries()
    import torch
    from transformers import AutoModel, AutoTokenizer

    from squadron.llm.backends.layers import take_turns_between_layers
    from squadron.train.models.builders import local_folder
    from squadron.train.models.errors import explaining_load_errors

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path, options = local_folder(config.path), {"revision": config.revision, "trust_remote_code": False}
    with explaining_load_errors(config.path, kind=ModelUnavailable):
        model, loading = AutoModel.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="right", **options)
    fix = "give a checkpoint of ColBERT's format, or an encoder"
    if missing := [name for name in loading["missing_keys"] if not name.startswith("pooler.")]:
        raise ModelUnavailable(f"the model has no weights for {', '.join(missing)}", where=config.path, fix=fix)
    head = _read_head(config, path).to(device) if _HEAD in loading["unexpected_keys"] else None
    if head is not None and (unknown := {_QUERY, _DOCUMENT, "[MASK]"} - tokenizer.get_vocab().keys()):
        what = f"the tokenizer of this ColBERT lacks {', '.join(sorted(unknown))}"
        raise ModelUnavailable(what, where=config.path, fix=fix)
    return take_turns_between_layers(model.to(device).eval()), tokenizer, head


def _read_head(config: LateConfig, path: str) -> Any:
    from safetensors import safe_open
    from transformers.utils import cached_file

    from squadron.train.models.errors import explaining_load_errors

    with explaining_load_errors(config.path, kind=ModelUnavailable):
        file = cached_file(path, "model.safetensors", revision=config.revision)
        with safe_open(file, "pt") as weights:
            return weights.get_tensor(_HEAD).float()
