"""Settings of metrics of translations, and which languages each metric knows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from squadron.core.config import Config, operational
from squadron.core.errors import InputError
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import Model
from squadron.evaluate.translation.comet.config import CometMetric

BleuTokenizer = Literal["by-language", "13a", "intl", "zh", "char", "none"]


class LexicalMetric(Config):
    """Words or characters in common with a reference, counted by sacrebleu or nltk."""


class BleuMetric(LexicalMetric):
    """BLEU from 0 to 100. lighteval's tasks of SwiLTra multiply sacrebleu's sentence scores by 100 once more, those of
    chrF and TER too."""

    kind: Literal["bleu"] = "bleu"
    name: str = Field("bleu", min_length=1)
    lowercase: bool = Field(False, description="without regard to case")
    tokenizer: BleuTokenizer = Field(
        "by-language", description="zh for Chinese, else 13a; one of the others for languages without spaces"
    )


class ChrfMetric(LexicalMetric):
    """chrF from 0 to 100."""

    kind: Literal["chrf"] = "chrf"
    name: str = Field("chrf", min_length=1)
    lowercase: bool = Field(False, description="without regard to case")
    word_order: int = Field(0, ge=0, description="longest n-grams of words; 2 is chrF++")


class TerMetric(LexicalMetric):
    """TER from 0 up, lower is better, without regard to case."""

    kind: Literal["ter"] = "ter"
    name: str = Field("ter", min_length=1)


class MeteorMetric(LexicalMetric):
    """METEOR from 0 to 1, without regard to case and without WordNet's data: its stage of synonyms finds nothing."""

    kind: Literal["meteor"] = "meteor"
    name: str = Field("meteor", min_length=1)
    alpha: float = Field(0.9, gt=0, lt=1, description="weight of recall against precision")
    beta: float = Field(3.0, ge=0, description="exponent of the penalty for broken order")
    gamma: float = Field(0.5, ge=0, le=1, description="largest penalty for broken order")


class Rescaling(Config):
    """A BERTScore b becomes (b - baseline) / (1 - baseline): the baseline is the mean of unrelated pairs of texts."""

    baseline: float = Field(lt=1)


class BertScoreMetric(Config):
    """F1 of matched token vectors of an encoder (Zhang et al. 2020). An encoder without a path is the packaged MiniLM:
    its scores are no one else's, and it has read English alone."""

    kind: Literal["bertscore"] = "bertscore"
    name: str = Field("bertscore", min_length=1)
    path: Annotated[InputPath | None, Model("encoder")] = Field(
        None, description="name on the hub or folder, such as FacebookAI/xlm-roberta-large; None: the packaged MiniLM"
    )
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    layer: int | None = Field(None, ge=0, description="whose vectors are matched; 0 are embeddings; None: the last")
    rescaling: Rescaling | None = None
    batch_size: int = operational(64, ge=1, description="texts encoded together")


class EmbeddingMetric(Config):
    """A small metric of the house, `squadron.evaluate.translation.embedding`: it needs no model but the packaged one,
    and runs on a processor."""

    kind: Literal["embedding"] = "embedding"
    name: str = Field("embedding", min_length=1)
    batch_size: int = operational(64, ge=1, description="texts encoded together")


AnyMetric = Annotated[
    BleuMetric | ChrfMetric | TerMetric | MeteorMetric | BertScoreMetric | EmbeddingMetric | CometMetric,
    Field(discriminator="kind"),
]

_CODES = """
aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es
et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki
kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no
nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te
tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
_SCRIPTS = """
ab am ar as av ba be bg bn ce cu cv dv el fa gu he hi hy ii iu ka kk kn ko ks kv ky mk ml mn mr ne or os pa pi
ps ru sa sd si sr ta te tg ti tt ug uk ur yi
"""
LANGUAGES = frozenset(_CODES.split())
"""Codes of ISO 639-1."""
UNSPACED = frozenset(("bo", "dz", "ja", "km", "lo", "my", "th", "zh"))
"""Languages written without spaces between words."""
OTHER_SCRIPTS = UNSPACED | frozenset(_SCRIPTS.split())
"""Languages that are not, or not only, written in Latin letters."""


def check_language(settings: AnyMetric, code: str) -> None:
    """Raise InputError for a target language that the metric does not know: no code of ISO 639-1, without spaces where
    words are counted, not in Latin letters where the packaged encoder reads.

    Which languages an encoder of the hub has read is not known here, and none is refused.
    """
    if code not in LANGUAGES:
        raise InputError(f"{code!r} is no language's code", where=f"metric {settings.name}",
                         fix="give a code of ISO 639-1 in small letters, such as de")  # fmt: skip
    match settings:
        case BleuMetric(tokenizer="by-language") if code == "ko" or code in UNSPACED - {"zh"}:
            what, fix = "has no tokenizer for it", "set tokenizer: char, or leave the language out of this metric"
        case TerMetric() | MeteorMetric() if code in UNSPACED:
            what, fix = "counts words, which are written without spaces", "measure this language by chrf"
        case BertScoreMetric(path=None) | EmbeddingMetric() if code in OTHER_SCRIPTS:
            what, fix = "reads Latin letters alone, by the packaged encoder", "name a multilingual encoder, or use chrf"
        case _:
            return
    raise InputError(f"the metric {what}: {code}", where=f"metric {settings.name}", fix=fix)
