"""Texts found by words, by vectors and by models that read query and document together.

    from squadron.core.folder import Folder
    from squadron.llm.embed import PackagedEmbedder
    from squadron.retrieval import Document, SearchIndex

    tools = [Document("weather", "The weather of a city"), Document("sum", "Adds numbers")]
    index = SearchIndex.build(Folder("index"), tools, embedder=PackagedEmbedder())
    found = index.search(["will it rain in Paris?"], k=1)             # by words and by meaning
    print(found.ids(index.ids), found.scores_QK)
    index, change = index.update([Document("news", "Headlines of today")], removed=["sum"])

A corpus too large for one process is embedded on a cluster by `vectors.embed_corpus`, once for each model. The parts
serve alone, too: `bm25`, `dense` with `Shards`, `fusion`, `rerank`. A ranking names documents by their places.
"""

from squadron.retrieval.documents import Document, Query
from squadron.retrieval.index import Change, SearchIndex
from squadron.retrieval.index_files import IndexConfig
from squadron.retrieval.ranking import Ranking, Searcher

__all__ = ["Change", "Document", "IndexConfig", "Query", "Ranking", "SearchIndex", "Searcher"]
