"""A graph of nodes with types and texts, held in arrays: built once, then mapped or shared by all processes of a node.

Whoever is connected stands in compressed sparse rows, one block of rows for each two types and relation, in which both
directions of an edge are found and each neighbour once. So a hop is a few look-ups in arrays, and nothing is sorted or
joined when it is asked for.

N nodes, E entries of neighbours, P places that are asked of, L nodes of a type.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.retrieval.graph.schema import Relation, Schema, ordered
from squadron.retrieval.graph.texts import Texts

MANIFEST, FORMAT = "graph.json", 1
_TEXTS = ("ids", "names", "texts")


class Node(NamedTuple):
    """A node as it is given."""

    id: str
    type: str
    name: str
    text: str


class Edge(NamedTuple):
    """An edge as it is given: ids of its ends, and the relation's name."""

    source: str
    relation: str
    target: str


class Neighbours(NamedTuple):
    """Neighbours of places: for each, in `row_E`, the number of the place among those asked of, in `place_E` itself.
    Rows ascend, and places within a row."""

    row_E: np.ndarray
    place_E: np.ndarray


class Hop(NamedTuple):
    """Nodes of two types by a relation; None: by any between the two."""

    source: str
    relation: str | None
    target: str


@dataclass(frozen=True, eq=False)
class KnowledgeBase:
    """Nodes by their places, 0 to N - 1, in the order in which they were given.

    `type_N` holds numbers in `schema.types`, `rank_N` the place of a node among those of its type, `order_N` places in
    the order of their ids. The neighbours by a hop begin in `ends` at `starts[hop]`.
    """

    schema: Schema
    ids: Texts
    names: Texts
    texts: Texts
    type_N: np.ndarray
    rank_N: np.ndarray
    order_N: np.ndarray
    starts: Mapping[Hop, int]
    ends: np.ndarray
    neighbours_E: np.ndarray

    @classmethod
    def build(cls, nodes: Iterable[Node], edges: Iterable[Edge]) -> KnowledgeBase:
        """A graph of these. Raises InputError for an id that occurs twice and an edge to no node."""
        given = list(nodes)
        places = {one.id: place for place, one in enumerate(given)}
        if len(places) < len(given):
            twice = next(one.id for place, one in enumerate(given) if places[one.id] != place)
            raise InputError(f"the id {twice!r} stands for two nodes", fix="give each node an id of its own")
        names: dict[str, int] = {}
        ends_E = []
        for edge in edges:
            if missing := [one for one in (edge.source, edge.target) if one not in places]:
                raise InputError(f"an edge leads to {missing[0]!r}, which is no node", fix="leave the edge out")
            relation = names.setdefault(edge.relation, len(names))
            ends_E.append((places[edge.source], relation, places[edge.target]))
        ids, named, texts = (Texts.of(getattr(one, name) for one in given) for name in ("id", "name", "text"))
        edges_E3 = np.array(ends_E, np.int64).reshape(-1, 3)
        return cls.of_arrays([one.type for one in given], ids, named, texts, edges_E3, list(names))

    @classmethod
    def of_arrays(
        cls,
        types: Sequence[str],
        ids: Texts,
        names: Texts,
        texts: Texts,
        edges_E3: np.ndarray,
        relations: Sequence[str],
    ) -> KnowledgeBase:
        """The same of edges that are places already: source, number of the relation in `relations`, target."""
        kinds = ordered(types)
        number = {kind: place for place, kind in enumerate(kinds)}
        type_N = np.fromiter((number[kind] for kind in types), np.int16, len(types))
        rank_N = np.empty(len(type_N), np.int32)
        for place in range(len(kinds)):
            own = np.flatnonzero(type_N == place)
            rank_N[own] = np.arange(len(own))
        order_N = np.array(sorted(range(len(ids)), key=ids.all_encoded().__getitem__), np.int64)
        found = [
            Relation(kinds[source], relations[relation], kinds[target])
            for source, relation, target in _triples(type_N, edges_E3)
        ]
        schema = Schema(kinds, tuple(found))
        counts = np.bincount(type_N, minlength=len(kinds))
        starts, ends, neighbours_E = _adjacency(schema, type_N, rank_N, counts, edges_E3, relations)
        return cls(schema, ids, names, texts, type_N, rank_N, order_N, starts, ends, neighbours_E)

    def __len__(self) -> int:
        return len(self.type_N)

    @property
    def edges(self) -> int:
        """How many pairs of nodes are connected, once for each relation."""
        entries = [self._rows(hop) for hop in self.starts if hop.relation is not None]
        return sum(int(rows[-1] - rows[0]) for rows in entries) // 2

    def nodes(self, kind: str) -> np.ndarray:
        """The places of all nodes of a type, ascending. Raises KeyError for no type."""
        if kind not in self.schema.types:
            raise KeyError(kind)
        return np.flatnonzero(self.type_N == self.schema.types.index(kind))

    def type_of(self, place: int) -> str:
        """The type of a node."""
        return self.schema.types[self.type_N[place]]

    def place(self, name: str) -> int:
        """The place of the node with this id. Raises KeyError if there is none."""
        wanted, low, high = name.encode(), 0, len(self.order_N)
        while low < high:
            middle = (low + high) // 2
            if self.ids.encoded(int(self.order_N[middle])) < wanted:
                low = middle + 1
            else:
                high = middle
        if low < len(self.order_N) and self.ids.encoded(int(self.order_N[low])) == wanted:
            return int(self.order_N[low])
        raise KeyError(name)

    def neighbours(self, places_P: np.ndarray, relation: str | None, target: str) -> Neighbours:
        """All neighbours of type `target` of places of one type, by edges of this relation in either direction; None:
        of any relation."""
        places_P = np.asarray(places_P, np.int64)
        none = Neighbours(np.empty(0, np.int64), np.empty(0, np.int64))
        if not len(places_P):
            return none
        hop = Hop(self.type_of(int(places_P[0])), relation, target)
        if hop not in self.starts:
            return none
        first = self.starts[hop] + self.rank_N[places_P].astype(np.int64)
        begin_P, end_P = self.ends[first], self.ends[first + 1]
        sizes_P = end_P - begin_P
        row_E = np.repeat(np.arange(len(places_P)), sizes_P)
        at_E = np.arange(sizes_P.sum()) + np.repeat(begin_P - (np.cumsum(sizes_P) - sizes_P), sizes_P)
        return Neighbours(row_E, self.neighbours_E[at_E].astype(np.int64))

    def relation(self, first: int, second: int) -> Relation | None:
        """The first relation by which two nodes are connected, in the direction in which it is stored; None if they are
        not."""
        source, target = self.type_of(first), self.type_of(second)
        for name in self.schema.between(source, target):
            if second in self.neighbours(np.array([first]), name, target).place_E:
                forward = Relation(source, name, target)
                return forward if forward in self.schema.relations else Relation(target, name, source)
        return None

    def save(self, folder: Folder) -> None:
        """Write the graph as arrays and one description."""
        for name, array in self._arrays().items():
            with tempfile.TemporaryDirectory() as scratch:
                np.save(f"{scratch}/array.npy", array, allow_pickle=False)
                folder.put(f"{name}.npy", f"{scratch}/array.npy")
        starts = [[*hop, start] for hop, start in self.starts.items()]
        schema = {"types": self.schema.types, "relations": [list(one) for one in self.schema.relations]}
        folder.write_json(MANIFEST, {"format": FORMAT, **schema, "starts": starts})

    @classmethod
    def open(cls, folder: Folder) -> KnowledgeBase:
        """The graph that was saved in a folder, its arrays mapped into memory. Raises InputError if there is none, or
        it is of another version."""
        if not folder.exists(MANIFEST):
            raise InputError("there is no graph", where=folder.file(MANIFEST), fix="name the folder of one")
        found = folder.read_json(MANIFEST)
        if found.get("format") != FORMAT:
            raise InputError("the graph is of another version", where=folder.file(MANIFEST), fix="build it again")

        def array(name: str) -> Any:
            return np.load(folder.local(f"{name}.npy"), mmap_mode="r", allow_pickle=False)

        schema = Schema(tuple(found["types"]), tuple(Relation(*one) for one in found["relations"]))
        ids, names, texts = (Texts(array(f"{name}-bytes"), array(f"{name}-ends")) for name in _TEXTS)
        starts = {Hop(*hop): start for *hop, start in found["starts"]}
        type_N, rank_N, order_N = (array(name) for name in ("type", "rank", "order"))
        return cls(
            schema, ids, names, texts, type_N, rank_N, order_N, starts, array("ends"), array("neighbours")
        )  # fmt: skip

    def _arrays(self) -> dict[str, np.ndarray]:
        found = {
            "type": self.type_N, "rank": self.rank_N, "order": self.order_N, "ends": self.ends,
            "neighbours": self.neighbours_E,
        }  # fmt: skip
        for name in _TEXTS:
            texts: Texts = getattr(self, name)
            found |= {f"{name}-bytes": texts.bytes_B, f"{name}-ends": texts.ends_N}
        return found

    def _rows(self, hop: Hop) -> np.ndarray:
        """Where the neighbours of each node of the hop's source end."""
        count = int((self.type_N == self.schema.types.index(hop.source)).sum())
        start = self.starts[hop]
        return self.ends[start : start + count + 1]


def _triples(type_N: np.ndarray, edges_E3: np.ndarray) -> list[tuple[int, int, int]]:
    """Which types are connected by which relations, in the order of their first edges."""
    if not len(edges_E3):
        return []
    source_E, target_E = (type_N[edges_E3[:, column]].astype(np.int64) for column in (0, 2))
    most = int(type_N.max()) + 1
    keys_E = (source_E * (int(edges_E3[:, 1].max()) + 1) + edges_E3[:, 1]) * most + target_E
    first = [int(np.argmax(keys_E == key)) for key in np.flatnonzero(np.bincount(keys_E))]
    return [(int(source_E[at]), int(edges_E3[at, 1]), int(target_E[at])) for at in sorted(first)]


def _adjacency(
    schema: Schema,
    type_N: np.ndarray,
    rank_N: np.ndarray,
    counts: np.ndarray,
    edges_E3: np.ndarray,
    relations: Sequence[str],
) -> tuple[dict[Hop, int], np.ndarray, np.ndarray]:
    """All blocks one after the other: where each begins in `ends`, which holds absolute places in the neighbours."""
    starts: dict[Hop, int] = {}
    ends, neighbours, rows_so_far, entries_so_far = [], [], 0, 0
    for hop, pairs_E2 in _hops(schema, type_N, edges_E3, relations):
        count = int(counts[schema.types.index(hop.source)])
        # One number for each pair: sorting and dropping what occurs twice is then one pass over one array.
        keys_E = _distinct(rank_N[pairs_E2[:, 0]].astype(np.int64) * len(type_N) + pairs_E2[:, 1])
        row_E, place_E = np.divmod(keys_E, max(len(type_N), 1))
        sizes_L = np.bincount(row_E, minlength=count)
        starts[hop] = rows_so_far
        ends.append(entries_so_far + np.concatenate([[0], np.cumsum(sizes_L)]))
        neighbours.append(place_E.astype(np.int32))
        rows_so_far += count + 1
        entries_so_far += len(place_E)
    none = [np.empty(0, np.int64)]
    return starts, np.concatenate(ends or none).astype(np.int64), np.concatenate(neighbours or none).astype(np.int32)


def _distinct(keys_E: np.ndarray) -> np.ndarray:
    """What `np.unique` gives, by sorting: its hashing takes ten times as long for keys that hardly ever repeat."""
    keys_E.sort()
    return keys_E[np.diff(keys_E, prepend=-1) > 0]


def _hops(schema: Schema, type_N: np.ndarray, edges_E3: np.ndarray, relations: Sequence[str]) -> Any:
    """Each hop with its pairs of places, edges taken in both directions; then those of any relation."""
    numbers = {name: place for place, name in enumerate(relations)}
    kinds = {name: place for place, name in enumerate(schema.types)}
    both: dict[tuple[str, str], list[np.ndarray]] = {}
    named: dict[Hop, list[np.ndarray]] = {}
    source_E, target_E = type_N[edges_E3[:, 0]], type_N[edges_E3[:, 2]]
    for one in schema.relations:
        kept = (source_E == kinds[one.source]) & (edges_E3[:, 1] == numbers[one.name]) & (target_E == kinds[one.target])
        pairs_E2 = edges_E3[kept][:, [0, 2]]
        for hop, pairs in (
            (Hop(one.source, one.name, one.target), pairs_E2),
            (Hop(one.target, one.name, one.source), pairs_E2[:, ::-1]),
        ):
            named.setdefault(hop, []).append(pairs)
            both.setdefault((hop.source, hop.target), []).append(pairs)
    for hop, parts in named.items():
        yield hop, np.concatenate(parts)
    for (source, target), parts in both.items():
        yield Hop(source, None, target), np.concatenate(parts)
