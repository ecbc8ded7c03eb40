"""All attacks, by kind."""

from __future__ import annotations

from tests.attacks import bodies, chats, connections, forms, robots, strangers, texts
from tests.attacks.attack import Attack

_MODULES = (connections, strangers, bodies, chats, forms, texts, robots)
KINDS: dict[str, tuple[Attack, ...]] = {module.__name__.rpartition(".")[2]: module.ATTACKS for module in _MODULES}
