"""Workers that a stage leaves running, because the next stage may need the same."""

from __future__ import annotations

from typing import Any


class IdleWorkers:
    """Pools of workers without work, each with its kind: what tells a later stage that it can use them."""

    def __init__(self) -> None:
        self._pools: list[tuple[str, Any]] = []

    @property
    def pools(self) -> list[Any]:
        """The pools, the one that has been idle longest first."""
        return [pool for _, pool in self._pools]

    def keep(self, kind: str, pool: Any) -> None:
        """Keep these workers running. `pool` has a method `close` that stops them."""
        self._pools.append((kind, pool))

    def reuse(self, kind: str) -> Any:
        """Hand over idle workers of this kind; None if there are none."""
        found = next((number for number, (known, _) in enumerate(self._pools) if known == kind), None)
        return None if found is None else self._pools.pop(found)[1]

    def close(self) -> None:
        """Stop all of them: something else needs their place."""
        while self._pools:
            self._pools.pop()[1].close()
