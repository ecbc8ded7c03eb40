"""What a HoT run takes, for `squadron plan`."""

from __future__ import annotations

from squadron.core.profile import Profile
from squadron.methods.hot.config import HotConfig


def questions(config: HotConfig, workers: int, profile: Profile) -> list[tuple[str, str]]:
    """How many are asked."""
    each = "all" if config.draw.how == "full" else f"{config.draw.count:,}"
    return [("questions", f"{each} of {_tasks(config)}, {config.draw.how}")]


def calls(config: HotConfig, workers: int, profile: Profile) -> list[tuple[str, str]]:
    """How many answers of the model that takes."""
    each = config.samples * len(config.modes)
    rows = [("answers of each model", f"{each} to each question, in {len(config.modes)} modes")]
    if config.draw.how != "full":
        most = each * len(config.models) * config.draw.count * max(1, len(config.tasks))
        rows.append(("answers", f"{most:,} at most, of {', '.join(one.model.name for one in config.models)}"))
    return rows


def solver(config: HotConfig, workers: int, profile: Profile) -> list[tuple[str, str]]:
    """What is trained."""
    one = config.solver
    if one is None:
        return []
    rows = one.problems * len(config.modes) + one.sums
    return [("trained here", f"{one.name}, on {rows:,} rows, batches of {one.training.batch_size}")]


def readers(config: HotConfig, workers: int, profile: Profile) -> list[tuple[str, str]]:
    """What readers get."""
    return [("the reader's page", f"{config.reader.items:,} answers at most")]


def _tasks(config: HotConfig) -> str:
    return f"{len(config.tasks)} tasks" if config.tasks else "problems made up by rule"
