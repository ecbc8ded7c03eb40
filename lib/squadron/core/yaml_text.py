"""YAML as settings need it: every value as it was written, and every key with its line.

YAML guesses types from how a word looks, by rules that differ from reader to reader: `no` is false to some, `010` is
eight, `1:30` is ninety, `1e-4` is a text. Here a word stays `Written` until the type of its setting is known
(`squadron.core.typed_values`). What says nothing of its own is refused with its line: a key that stands twice, a key
that is no text, an alias inside what it stands for, aliases that multiply, tags, more than one document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from squadron.core.errors import ConfigError

MOST_DEEP, MOST_VALUES = 60, 100_000
_PLAIN, _TEXT = "plain", "tag:yaml.org,2002:str"
_TAGS = {_PLAIN, _TEXT, "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

NULLS = ("null", "Null", "NULL", "~", "")
TRUTHS = {word: truth for truth in (True, False) for word in (f"{truth}", f"{truth}".lower(), f"{truth}".upper())}
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
NUMBER = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
DISPUTED = re.compile(
    r"(?i)yes|no|on|off"  # truths to some
    r"|[-+]?0[0-9]+|[-+]?0[xob][0-9a-f_]+"  # octal to some; other bases
    r"|[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?(e[-+]?[0-9]+)?"
    r"|[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"  # sexagesimal to some
)
"""Words that one reader takes for a truth or a number, and another for a text or another number."""


class Written(str):
    """A word of a file as it was written, without quotes. What it means depends on the setting."""


class Word(Written):
    """What stands behind the `=` on a command line."""


class _Loader(yaml.SafeLoader):
    """Leaves plain words as they are, and stops where nesting is deeper than any settings."""

    depth = 0

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _TEXT
        return str(super().resolve(kind, value, implicit))

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > MOST_DEEP:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=f"nested more than {MOST_DEEP} deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_yaml(text: str, where: str) -> tuple[Any, dict[str, int]]:
    """What a text says, of mappings, lists, `Written` words and texts, and the line of each `a.b.0.c` key.

    Raises ConfigError that names `where` and the line.
    """
    node, values = _compose(text, where), _Values(where)
    return (None if node is None else values.of(node, "")), values.lines


def read_mapping(content: bytes, where: str) -> tuple[dict[str, Any], dict[str, int]]:
    """What the bytes of a file say, which is a mapping or nothing at all, and the lines of its keys. Raises ConfigError
    as `read_yaml` does, and for a file that is not UTF-8."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        fix = "save the file as UTF-8"
        raise ConfigError("the file is not UTF-8", where=f"{where}, line {line}", fix=fix) from None
    values, lines = read_yaml(text, where)
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        found = "a list" if isinstance(values, list) else f"the word {str(values)[:40]!r}"
        raise ConfigError(f"expected settings, found {found}", where=where, fix="write key: value")
    return values, lines


def read_flow(text: str) -> Any:
    """What a word says that is a list, a mapping or a text in quotes. Raises ConfigError if it is none, or if a comment
    would take its end."""
    node = _compose(text, "")
    if node is None or node.end_mark.index != len(text.rstrip()):
        raise ConfigError("not valid YAML: something follows its end")
    return _Values("").of(node, "")


def write_yaml(values: Mapping[str, Any]) -> str:
    """YAML that `read_yaml` reads as the same: whatever it could take for something else is put into quotes."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def plain_kind(text: str) -> str:
    """What a word is where nothing is known of its setting: null, bool, int, float, infinite, disputed, or str."""
    kinds = (("int", INTEGER), ("float", NUMBER), ("infinite", NOT_FINITE), ("disputed", DISPUTED))
    if text in NULLS:
        return "null"
    return "bool" if text in TRUTHS else next((kind for kind, form in kinds if form.fullmatch(text)), "str")


class _Dumper(yaml.SafeDumper):
    """Puts into quotes what this reader, or one of YAML 1.1, would take for something else."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        found = plain_kind(value) if kind is yaml.ScalarNode and implicit[0] else "str"
        if found == "str":
            return str(super().resolve(kind, value, implicit))
        return f"tag:yaml.org,2002:{'float' if found == 'infinite' else found}"

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """In double quotes where another style could lose a blank or a line break, or a word has a meaning of its own."""
    odd = text == "None" or any(not sign.isprintable() for sign in text.replace("\n", ""))
    return yaml.ScalarNode(_TEXT, text, style='"' if odd or re.search(r"^\n|\s\n\s|^\s|\s$", text) else None)


_Dumper.add_representer(str, _write_text)


def _compose(text: str, where: str) -> yaml.Node | None:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = len(_LINE_BREAK.findall(text[: error.position])) + 1
        what = f"the character U+{ord(text[error.position]):04X} may not stand here as it is"
        fix = 'write it in double quotes, as "\\x00" or "\\u0000"'
        raise ConfigError(what, where=f"{where}, line {line}", fix=fix) from None
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}, line {mark.line + 1}" if mark else where
        what = "; ".join(said for said in (error.context, error.problem) if said)
        raise ConfigError(f"not valid YAML: {what}", where=place) from None
    except (ValueError, OverflowError) as error:  # an escape that names no character
        raise ConfigError(f"not valid YAML: {error}", where=f"{where}, line {loader.line + 1}") from None
    finally:
        loader.dispose()


class _Values:
    """Builds the values of nodes, and notes the lines of their keys."""

    def __init__(self, where: str) -> None:
        self.lines: dict[str, int] = {}
        self._where, self._open, self._count = where, set[int](), 0

    def of(self, node: yaml.Node, key: str) -> Any:
        """The value of a node, at a key."""
        self._count += 1
        if self._count > MOST_VALUES:
            raise self._wrong(node, f"{key} is of more than {MOST_VALUES:,} values, aliases counted")
        if node.tag not in _TAGS:
            what = f"{key or 'the file'} has the tag {node.tag.replace('tag:yaml.org,2002:', '!!')}"
            raise self._wrong(node, what, "leave the tag out")
        if isinstance(node, yaml.ScalarNode):
            return Written(node.value) if node.tag == _PLAIN else self._text(node)
        if id(node) in self._open:
            raise self._wrong(node, f"{key} holds itself")
        self._open.add(id(node))
        value = self._mapping(node, key) if isinstance(node, yaml.MappingNode) else self._list(node, key)
        self._open.discard(id(node))
        return value

    def _list(self, node: Any, key: str) -> list[Any]:
        found = []
        for number, item in enumerate(node.value):
            inner = f"{key}.{number}" if key else str(number)
            self.lines[inner] = item.start_mark.line + 1
            found.append(self.of(item, inner))
        return found

    def _mapping(self, node: Any, key: str) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        seen: dict[str, int] = {}
        for name_node, item in node.value:
            line = name_node.start_mark.line + 1
            name = self._name(name_node, key)
            inner = f"{key}.{name}" if key else name
            if name in seen:
                places = f"{self._where}, lines {seen[name]} and {line}"
                raise ConfigError(f"{inner} is set twice", where=places, fix="keep one of them")
            seen[name] = line
            if name == "<<" and name_node.tag == _PLAIN:
                merged += item.value if isinstance(item, yaml.SequenceNode) else [item]
                continue
            self.lines[inner] = line
            own[name] = self.of(item, inner)
        lines = dict(self.lines)
        for part in merged:  # what is set here comes before, and of several the first
            if not isinstance(part, yaml.MappingNode):
                raise self._wrong(part, f"{key or 'the file'}: << merges what is no mapping")
            own = self.of(part, key) | own
        self.lines |= lines
        return own

    def _name(self, node: Any, key: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._wrong(node, f"a key of {key or 'the file'} is no text")
        if not node.value:
            raise self._wrong(node, f"a key of {key or 'the file'} is empty")
        return self._text(node)

    def _text(self, node: Any) -> str:
        """Halves that escapes name one by one, as JSON does, are joined."""
        try:
            return str(node.value.encode("utf-16", "surrogatepass").decode("utf-16"))
        except UnicodeDecodeError:
            raise self._wrong(node, "half of a character (a lone surrogate) is no text") from None

    def _wrong(self, node: yaml.Node, what: str, fix: str = "") -> ConfigError:
        return ConfigError(what, where=f"{self._where}, line {node.start_mark.line + 1}", fix=fix)
