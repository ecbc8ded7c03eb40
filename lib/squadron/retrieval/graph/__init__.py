"""Graphs whose nodes have texts: who is connected with whom, and which node of a type a text tells of.

from squadron.retrieval.graph import KnowledgeBase, TypedWords

graph = KnowledgeBase.build(nodes, edges)                      # or squadron.retrieval.graph.files.read_graph
words = TypedWords.build(graph)
found = words.search("author", ["Ada Lovelace"], k=5)          # places of nodes, by words, among authors alone
papers = graph.neighbours(found.places_QK[0], None, "paper")   # and the papers that these are connected with
"""

from squadron.retrieval.graph.knowledge import Edge, KnowledgeBase, Neighbours, Node
from squadron.retrieval.graph.questions import Question
from squadron.retrieval.graph.schema import Relation, Schema
from squadron.retrieval.graph.words import TypedWords

__all__ = ["Edge", "KnowledgeBase", "Neighbours", "Node", "Question", "Relation", "Schema", "TypedWords"]
