"""A job of one's own that embeds numbered texts at an address."""

from __future__ import annotations

from squadron.core.config import Config
from squadron.core.job import job
from squadron.core.run import Run, Stage
from squadron.llm.embed import OpenAiEmbedder
from squadron.retrieval.vectors import Vectors, embed_corpus


class EmbeddingJobConfig(Config):
    count: int = 1000
    address: str = ""


def texts_of(count: int) -> list[str]:
    """Texts of several lengths; every tenth is that of ten before."""
    return [f"text {n - 10 if n % 10 == 9 and n > 10 else n}" + " x" * (n * 7 % 13) for n in range(count)]


def embed(stage: Stage, config: EmbeddingJobConfig) -> Vectors:
    """One request a text, so that the server counts texts."""
    model = OpenAiEmbedder(model="echo", base_url=config.address, batch_size=1, normalize=False)
    return embed_corpus(stage, texts_of(config.count), model)


@job(EmbeddingJobConfig)
def embedding_job(run: Run, config: EmbeddingJobConfig) -> None:
    """Vectors of texts."""
    run.stage(embed, config)
