"""What a Rewrite run needs, from its configuration alone."""

from __future__ import annotations

from collections.abc import Sequence

from squadron.core.profile import Profile
from squadron.methods.rewrite.config import ChatRewriter, RewriteConfig

Rows = Sequence[tuple[str, str]]


def logs(config: RewriteConfig, workers: int, profile: Profile) -> Rows:
    """What is rewritten."""
    if not config.logs:
        world = config.world
        return [("conversations", f"{world.conversations:,} of {world.turns} turns, made up")]
    return [("conversations", ", ".join(f"{one.name} ({one.format}, {one.use})" for one in config.logs))]


def rewriting(config: RewriteConfig, workers: int, profile: Profile) -> Rows:
    """How often each turn is rewritten."""
    settings = len(config.strategies) * len(config.ks) * len(config.classifiers)
    rows = [("rewriters", ", ".join(one.name for one in config.rewriters))]
    rows.append(("settings of each", f"{settings}: {', '.join(config.strategies)}; k {', '.join(map(str, config.ks))}"))
    chat = [one for one in config.rewriters if isinstance(one, ChatRewriter)]
    if chat:
        turns = f"; {settings * config.world.conversations * config.world.turns:,}" if not config.logs else ""
        words = f"at most one a turn and setting{turns}, equal ones once"
        rows.append(("requests to chat models", words))
    return rows
