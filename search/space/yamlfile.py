"""Reading YAML safely, with the line of every key, and writing it back (torch-free).

The scalars are those of YAML 1.2's core schema, so that `1e-4` and `1.0e-4` are both numbers and `on`, `no`
and `12:30` are text; underscores may group digits (`1_500_000`). Nothing is constructed but text, numbers,
truth values, nothing, lists and mappings; duplicate keys, merge keys (`<<`), other tags and aliases that repeat
themselves into millions of values are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from search.space.errors import Mistake, SpaceError

Path = tuple[str | int, ...]

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_EXPONENT = r"[eE][-+]?[0-9]+"
_FLOAT = re.compile(
    rf"[-+]?(?:{_DIGITS}\.[0-9]*(?:{_EXPONENT})?|\.[0-9]+(?:{_EXPONENT})?|{_DIGITS}{_EXPONENT}|\.(?:inf|Inf|INF))"
    r"|\.(?:nan|NaN|NAN)"
)
_NULLS = ("", "~", "null", "Null", "NULL")
_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")
)
_LONGEST_NUMBER = 300  # characters; longer ones are text, since nothing here could hold their value
_MOST_VALUES = 50_000  # far above any space; stops aliases of aliases from filling the memory


@dataclass
class Document:
    """A parsed file: its value, and the line (from 1) of every key and list item by path."""

    file: str
    value: Any
    lines: dict[Path, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)  # duplicate keys and the like

    def line(self, path: Path) -> int | None:
        """Line of `path`, or of the nearest enclosing entry that has one."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def read(text: str, file: str) -> Document:
    """Parse YAML; raises `SpaceError` with the line for what is no YAML at all."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise SpaceError(file, [_syntax(error)]) from None
    except yaml.YAMLError as error:
        raise SpaceError(file, [Mistake("", f"this is not YAML: {error}")]) from None
    document = Document(file, None)
    if node is not None:
        document.value = _Reader(document).value(node, ())
    return document


def scalar(text: str) -> Any:
    """One plain scalar as a space file would read it: `scalar("1e-4")` is 0.0001; quotes make text."""
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "'\"":
        return stripped[1:-1]
    return _plain(stripped)


def write(value: Any) -> str:
    """YAML text that `read` turns back into `value`, keys in the order given."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _plain(text: str) -> Any:
    if text in _NULLS:
        return None
    if text in _TRUTHS:
        return _TRUTHS[text]
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _syntax(error: yaml.MarkedYAMLError) -> Mistake:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}" if mark else ""
    context = f" {error.context}" if error.context else ""
    return Mistake(where, f"this is not YAML: {error.problem or 'it cannot be read'}{context}")


class _Reader:
    """Turns PyYAML's node graph into plain values and notes lines on the way."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0
        self._open: list[int] = []

    def value(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self._document.lines.setdefault(path, line)
        self._count += 1
        if self._count > _MOST_VALUES:
            raise SpaceError(self._document.file, [Mistake(f"line {line}", "more values than any space holds")])
        if id(node) in self._open:
            raise SpaceError(self._document.file, [Mistake(f"line {line}", "an alias that contains itself")])
        if node.tag not in _PLAIN_TAGS and not _odd_text(node):
            self._complain(line, path, f"the tag {node.tag} is not allowed; write plain text, numbers or lists")
            return None
        self._open.append(id(node))
        try:
            return self._inside(node, path)
        finally:
            self._open.pop()

    def _inside(self, node: yaml.Node, path: Path) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return _plain(node.value) if node.style is None else node.value
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                self._complain(line, path, "a key must be a plain name; lists, mappings and << are not allowed")
                continue
            key = key_node.value  # always text: `on:` and `1:` are names here
            if key in found:
                first = self._document.lines[(*path, key)]
                self._complain(line, (*path, key), f"this key is already there in line {first}; keep one of them")
                continue
            self._document.lines[(*path, key)] = line
            found[key] = self.value(value_node, (*path, key))
        return found

    def _complain(self, line: int, path: Path, message: str) -> None:
        self._document.mistakes.append(Mistake(at(line, path), message))


def _odd_text(node: yaml.Node) -> bool:
    """PyYAML gives `=` and `<<` tags of their own; as values they are text."""
    return isinstance(node, yaml.ScalarNode) and node.tag.rpartition(":")[2] in ("value", "merge")


def at(line: int | None, path: Path) -> str:
    """`line 12, params.moa.experts`; list items count from 1 as people do."""
    name = ""
    for part in path:
        name += f"[{part + 1}]" if isinstance(part, int) else (f".{part}" if name else part)
    return ", ".join(piece for piece in (f"line {line}" if line else "", name) if piece)


class Flow(dict[str, Any]):
    """A mapping to be written in one line."""


class _Dumper(yaml.SafeDumper):
    """Quotes everything that a YAML 1.1 or 1.2 reader could take for a number; lists stand in one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"^(?:{_FLOAT.pattern})$"), list("-+0123456789."))


def _sequence(dumper: yaml.SafeDumper, data: Any) -> yaml.Node:
    flat = not any(isinstance(item, (list, dict)) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


def _mapping(dumper: yaml.SafeDumper, data: dict[str, Any]) -> yaml.Node:
    flow = isinstance(data, Flow)
    return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=flow)


def _float(dumper: yaml.SafeDumper, data: float) -> yaml.Node:
    text = repr(data).replace("inf", ".inf").replace("nan", ".nan")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
    # Only double quotes keep every unusual character (line separators, for one) as it was.
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(list, _sequence)
_Dumper.add_representer(tuple, _sequence)
_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(Flow, _mapping)
_Dumper.add_representer(float, _float)
_Dumper.add_representer(str, _text)
