"""Checks of this machine, and of every node of a cluster, each with the command that repairs what is wrong.

A check is a function of facts that gives a `Finding`. Facts of a machine are gathered where the machine is
(`facts.py`), those between machines by an actor on each node (`nodes.py`).
"""
