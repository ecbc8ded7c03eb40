"""Made-up graphs of papers, with questions whose answers are known by construction.

Papers share what they are on with other papers, authors share their names, and no paper's text says who wrote it or
what its topics are. So the words of a question leave several papers, and the edges leave several; only both together
leave the answers.

| kind | which papers it asks for | what answers it |
|---|---|---|
| text | those on a subject | words |
| one_hop | those on a subject by an author of this name | words and a hop |
| two_hop | those on a subject by anybody at an institution | words and two hops |
| intersection | those about a topic by an author of this name | hops that meet |

N nodes of a type, E edges, V words.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from squadron.core.config import Config
from squadron.core.rehearsal import AtMost
from squadron.retrieval.graph.knowledge import KnowledgeBase
from squadron.retrieval.graph.questions import Question
from squadron.retrieval.graph.texts import Texts

TYPES = ("paper", "author", "institution", "topic")
RELATIONS = ("writes", "works_at", "about", "cites")
KINDS = ("text", "one_hop", "two_hop", "intersection")
_SHARES = {"author": 0.25, "institution": 0.03, "topic": 0.12}  # of the nodes; the others are papers
_WORDS, _SUBJECT, _NOISE = 2_000, 3, 14
_ASKED = {
    "text": ("Which papers are on {paper}?", "Show me work on {paper}."),
    "one_hop": ("Which papers on {paper} did {author} write?", "What has {author} published on {paper}?"),
    "two_hop": (
        "Which papers on {paper} come from {institution}?",
        "What do people at {institution} publish on {paper}?",
    ),
    "intersection": (
        "Which papers about {topic} did {author} write?",
        "What has {author} published in the area of {topic}?",
    ),
}


class MadeUpConfig(Config):
    """How large a made-up graph is, and how much is asked about it."""

    nodes: Annotated[int, AtMost(400)] = Field(3_000, ge=100, le=20_000_000)
    edges_per_node: Annotated[int, AtMost(6)] = Field(6, ge=2, le=1_000, description="on average; some occur twice")
    questions: Annotated[int, AtMost(16)] = Field(400, ge=1, description="of four kinds in turn")
    seed: int = Field(0, ge=0)


@dataclass(frozen=True, eq=False)
class _Links:
    """Edges by their first ends, as numbers among the nodes of a type."""

    second_E: np.ndarray
    starts_N: np.ndarray

    @classmethod
    def of(cls, first_E: np.ndarray, second_E: np.ndarray, count: int) -> _Links:
        order_E = np.argsort(first_E, kind="stable")
        return cls(second_E[order_E], np.searchsorted(first_E[order_E], np.arange(count + 1)))

    def __getitem__(self, number: int) -> np.ndarray:
        return self.second_E[self.starts_N[number] : self.starts_N[number + 1]]

    def all(self, numbers: Sequence[int]) -> set[int]:
        """The other ends of all edges of these."""
        return {int(one) for number in numbers for one in self[number]}


@dataclass(frozen=True, eq=False)
class _World:
    """What the nodes are made of: a number of a subject for each paper and of a name for each author, the texts of
    these, and edges by their relations, as numbers among the nodes of their types."""

    counts: dict[str, int]
    subject_N: np.ndarray
    name_N: np.ndarray
    subjects: list[str]
    authors: list[str]
    institutions: list[str]
    topics: list[str]
    edges: dict[str, tuple[np.ndarray, np.ndarray]]


def make_graph(config: MadeUpConfig) -> tuple[KnowledgeBase, list[Question]]:
    """A graph of papers, authors, institutions and topics, and questions about it; the same for the same settings. A
    million nodes with ten million edges take some twenty seconds."""
    draw = np.random.default_rng(config.seed)
    vocabulary = _vocabulary(draw)
    world = _world(config, draw, vocabulary)
    return _graph(world, draw, vocabulary), _questions(world, config.questions, draw)


def _vocabulary(draw: np.random.Generator) -> list[str]:
    """Words that can be spoken, each once."""
    syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    numbers = draw.choice(len(syllables) ** 3, _WORDS, replace=False).tolist()
    size = len(syllables)
    return [syllables[n // size**2] + syllables[n // size % size] + syllables[n % size] for n in numbers]


def _world(config: MadeUpConfig, draw: np.random.Generator, vocabulary: list[str]) -> _World:
    others = {kind: max(2, round(config.nodes * share)) for kind, share in _SHARES.items()}
    counts = {"paper": config.nodes - sum(others.values()), **others}
    keys = draw.permutation(np.unique(draw.integers(_WORDS**_SUBJECT, size=max(counts["paper"] // 3, 1))))
    subjects = [
        " ".join(vocabulary[key // _WORDS**place % _WORDS] for place in range(_SUBJECT)) for key in keys.tolist()
    ]
    authors = _pairs(max(counts["author"] // 2, 1), draw, vocabulary)
    edges = _edges(config.nodes * config.edges_per_node, counts, draw)
    return _World(
        counts,
        draw.integers(len(subjects), size=counts["paper"]),
        draw.integers(len(authors), size=counts["author"]),
        subjects,
        [one.title() for one in authors],
        [f"Institute of {one.title()}" for one in _pairs(counts["institution"], draw, vocabulary)],
        _pairs(counts["topic"], draw, vocabulary),
        edges,
    )


def _pairs(count: int, draw: np.random.Generator, vocabulary: list[str]) -> list[str]:
    """So many different names of two words, of which each word stands in several names."""
    width = min(2 * math.isqrt(count) + 2, len(vocabulary) // 2)
    words = draw.choice(len(vocabulary), 2 * width, replace=False)
    first_N, second_N = np.divmod(draw.choice(width**2, count, replace=count > width**2), width)
    pairs = zip(words[first_N].tolist(), words[width + second_N].tolist(), strict=True)
    return [f"{vocabulary[one]} {vocabulary[other]}" for one, other in pairs]


def _edges(
    count: int, counts: dict[str, int], draw: np.random.Generator
) -> dict[str, tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Each author works somewhere; of the others a quarter are of writing, a sixth of topics. Some papers are cited
    far more often than others."""
    papers, authors, institutions, topics = (counts[kind] for kind in TYPES)
    left = max(count - authors, 6)
    writes, about = left // 4, left // 6
    cites = left - writes - about
    return {
        "writes": (draw.integers(authors, size=writes), draw.integers(papers, size=writes)),
        "works_at": (np.arange(authors), draw.integers(institutions, size=authors)),
        "about": (draw.integers(papers, size=about), draw.integers(topics, size=about)),
        "cites": (draw.integers(papers, size=cites), (papers * draw.random(cites) ** 2).astype(np.int64)),
    }


def _graph(world: _World, draw: np.random.Generator, vocabulary: list[str]) -> KnowledgeBase:
    """The nodes type by type, and the edges by their places."""
    starts = dict(zip(TYPES, np.cumsum([0, *world.counts.values()]).tolist(), strict=False))
    names = [
        _noise(world.counts["paper"], 4, draw, vocabulary),
        [world.authors[number] for number in world.name_N.tolist()],
        world.institutions,
        world.topics,
    ]
    tails = [_noise(world.counts[kind], _NOISE, draw, vocabulary) for kind in TYPES]
    subjects = [world.subjects[number] for number in world.subject_N.tolist()]
    texts = [
        [f"A paper on {subject}. {tail}." for subject, tail in zip(subjects, tails[0], strict=True)],
        *([f"{kind.capitalize()}: {tail}." for tail in some] for kind, some in zip(TYPES[1:], tails[1:], strict=True)),
    ]
    ends = {"writes": ("author", "paper"), "works_at": ("author", "institution"), "about": ("paper", "topic")}
    parts = []
    for number, relation in enumerate(RELATIONS):
        first_E, second_E = world.edges[relation]
        source, target = ends.get(relation, ("paper", "paper"))
        parts.append(np.stack([first_E + starts[source], np.full_like(first_E, number), second_E + starts[target]], 1))
    return KnowledgeBase.of_arrays(
        [kind for kind, count in world.counts.items() for _ in range(count)],
        Texts.of(_id(kind, number) for kind, count in world.counts.items() for number in range(count)),
        Texts.of(itertools.chain.from_iterable(names)),
        Texts.of(itertools.chain.from_iterable(texts)),
        np.concatenate(parts),
        RELATIONS,
    )


def _noise(count: int, words: int, draw: np.random.Generator, vocabulary: list[str]) -> list[str]:
    """So many words for each of so many nodes; every node's subject and name are made of such words, too."""
    return [" ".join([vocabulary[one] for one in row]) for row in draw.integers(_WORDS, size=(count, words)).tolist()]


def _id(kind: str, number: int) -> str:
    return f"{kind}_{number}"


def _questions(world: _World, count: int, draw: np.random.Generator) -> list[Question]:
    """Each begins at an edge, so that it has an answer; its answers are all papers of which it holds."""
    counts = world.counts
    wrote_E, written_E = world.edges["writes"]
    institution_N = world.edges["works_at"][1]
    papers_on = _Links.of(world.subject_N, np.arange(counts["paper"]), len(world.subjects))
    authors_named = _Links.of(world.name_N, np.arange(counts["author"]), len(world.authors))
    papers_by = _Links.of(wrote_E, written_E, counts["author"])
    topics_of = _Links.of(*world.edges["about"], counts["paper"])
    staff_of = _Links.of(institution_N, np.arange(counts["author"]), counts["institution"])

    def question(number: int, kind: str) -> Question:
        edge = int(draw.integers(len(wrote_E)))
        author, paper = int(wrote_E[edge]), int(written_E[edge])
        name, subject, institution = int(world.name_N[author]), int(world.subject_N[paper]), int(institution_N[author])
        on_subject = {int(one) for one in papers_on[subject]}
        by_name = papers_by.all(authors_named[name].tolist())
        said = {"paper": world.subjects[subject], "author": world.authors[name]}
        if kind == "text":
            return _asked(number, kind, {"paper": said["paper"]}, [("paper",)], on_subject, draw)
        if kind == "two_hop":
            at_institution = papers_by.all(staff_of[institution].tolist())
            said = {"institution": world.institutions[institution], "paper": said["paper"]}
            routes = [("institution", "author", "paper")]
            return _asked(number, kind, said, routes, on_subject & at_institution, draw)
        if kind == "intersection" and len(topics_of[paper]):
            topic = int(draw.choice(topics_of[paper]))
            about_topic = {one for one in by_name if topic in topics_of[one]}
            said = {"author": said["author"], "topic": world.topics[topic]}
            return _asked(number, kind, said, [("author", "paper"), ("topic", "paper")], about_topic, draw)
        return _asked(number, "one_hop", said, [("author", "paper")], on_subject & by_name, draw)

    return [question(number, KINDS[number % len(KINDS)]) for number in range(count)]


def _asked(
    number: int,
    kind: str,
    said: dict[str, str],
    routes: Sequence[tuple[str, ...]],
    answers: set[int],
    draw: np.random.Generator,
) -> Question:
    """A question in one of its forms, and what it says of nodes of each type.

    Where a route leads to the papers, the plan leaves what they are on to the question's own words: papers that are
    found by words in the middle of a route begin it anew (section 3.2 of MoR), and it would no longer be known that an
    edge led to them.
    """
    query = _ASKED[kind][int(draw.integers(2))].format(**said)
    restriction = {of: (text,) for of, text in said.items() if of == routes[0][0] or of != "paper"}
    ids = tuple(_id("paper", one) for one in sorted(answers))
    return Question(f"q{number}", kind, query, ("paper",), ids, tuple(routes), restriction)
