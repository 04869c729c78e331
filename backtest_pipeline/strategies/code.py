"""A hash of a strategy's own code, the same on every Python and wherever the code lies.

It is taken of the syntax tree, and of the trees of the modules beside it that it imports. What
cannot change a number is left out: positions, comments, docstrings, annotations, the order of
imports, the names of files, and where in this package an imported name lives. What the package's
own functions do is under declared versions, and what installed packages do is recorded with runs.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

_PACKAGE = __name__.partition(".")[0]
_DIGEST_BYTES = 8
# What differs between versions of Python, or says something to people and type checkers alone.
_LEFT_OUT = {"ctx", "annotation", "returns", "type_comment", "type_ignores", "type_params", "kind"}
_DESCRIBING = {"description", "title"}
_CYCLE = "(cycle)"


def code_hash(
    path: Path,
    package: str = "",
    contract: Collection[str] = (),
    files: Mapping[Path, bytes] | None = None,
) -> str:
    """Hash of a module's code and of all that it imports from beside itself, 16 hex digits.

    Args:
        path: the module's file.
        package: what its folder is imported as, such as `backtest_pipeline.strategies`; empty for
            a folder of loose files.
        contract: modules beside it that every strategy imports and a declared version is about;
            they are left out.
        files: content by path, of files that were read before; by default they are read here.

    Raises:
        SyntaxError: for a module that this Python cannot read.
    """
    return _Folder(path.parent, package, frozenset(contract), files).hash_of(path, ())


class _Folder:
    """The folder of a strategy; imports lead from one of its modules to others."""

    def __init__(
        self,
        root: Path,
        package: str,
        contract: frozenset[str],
        files: Mapping[Path, bytes] | None,
    ) -> None:
        self._root = root
        self._package = package
        self._contract = contract
        self._files = files

    def hash_of(self, path: Path, importing: tuple[Path, ...]) -> str:
        """Hash of a module; `importing` are those on the way to it."""
        tree = ast.parse(path.read_bytes() if self._files is None else self._files[path])
        nodes = list(_nodes(tree))
        imports = {
            line
            for node in nodes
            if isinstance(node, ast.Import | ast.ImportFrom)
            for line in self._imports(node, path, (*importing, path))
        }
        text = "\n".join((*sorted(imports), _written(tree)))
        return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()

    def _imports(
        self, node: ast.Import | ast.ImportFrom, path: Path, importing: tuple[Path, ...]
    ) -> Iterator[str]:
        """For each name that an import binds: where from, what, and as what."""
        if isinstance(node, ast.ImportFrom):
            module = self._absolute(node, path)
            if module == "__future__":
                return
            for alias in node.names:
                yield self._import(module, alias.name, alias.asname or alias.name, importing)
        else:
            for alias in node.names:
                yield self._import(alias.name, "", alias.asname or alias.name, importing)

    def _import(self, module: str, name: str, bound: str, importing: tuple[Path, ...]) -> str:
        beside = self._beside(module, name)
        if beside:
            origin = " ".join(
                _CYCLE if path in importing else self.hash_of(path, importing) for path in beside
            )
        elif module.partition(".")[0] in ("", _PACKAGE, self._package.partition(".")[0]):
            origin = ""
            bound = bound.rpartition(".")[2]
        else:
            origin = module
        return f"import {origin!a} {name!a} {bound!a}"

    def _absolute(self, node: ast.ImportFrom, path: Path) -> str:
        """The dotted name of the module, from a name that may be relative."""
        if not node.level:
            return node.module or ""
        own = [*filter(None, self._package.split(".")), *path.relative_to(self._root).parts]
        kept = own[: len(own) - node.level] if node.level <= len(own) else []
        return ".".join((*kept, *filter(None, [node.module])))

    def _beside(self, module: str, name: str) -> list[Path]:
        """The files of the folder that importing a name from a module runs."""
        prefix = f"{self._package}." if self._package else ""
        if f"{module}." != prefix and not module.startswith(prefix):
            return []
        inner = module.removeprefix(prefix) if module != self._package else ""
        parts = [*filter(None, inner.split(".")), *filter(None, [name])]
        if not parts or parts[0] in self._contract:
            return []
        found: list[Path] = []
        for n in range(1, len(parts) + 1):
            stem = self._root.joinpath(*parts[:n])
            found += [
                path
                for path in (stem.with_suffix(".py"), stem / "__init__.py")
                if (path.is_file() if self._files is None else path in self._files)
            ]
        return found


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers see."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not _is_for_type_checkers(child):
            yield from _nodes(child)


def _is_for_type_checkers(node: ast.AST) -> bool:
    if not isinstance(node, ast.If) or node.orelse:
        return False
    test = node.test
    name = test.id if isinstance(test, ast.Name) else getattr(test, "attr", "")
    return name == "TYPE_CHECKING"


def _written(value: object) -> str:
    """A node, or a field of one, as text: names of nodes and fields, and no empty field."""
    if isinstance(value, ast.Constant):
        return _constant(value.value)
    if isinstance(value, ast.JoinedStr):
        return f"(JoinedStr {''.join(_joined(value.values))})"
    if isinstance(value, ast.AnnAssign) and value.value is not None:
        return f"(Assign targets=[{_written(value.target)}] value={_written(value.value)})"
    if isinstance(value, ast.AST):
        fields = ((name, getattr(value, name, None)) for name in value._fields)
        texts = [
            f" {name}={text}"
            for name, field in fields
            if name not in _LEFT_OUT and (text := _field(value, field))
        ]
        return f"({type(value).__name__}{''.join(texts)})"
    return ascii(value)


def _field(owner: ast.AST, value: object) -> str:
    """A field's text; empty where it holds nothing that counts."""
    if not isinstance(value, list):
        is_empty = value is None or (
            isinstance(value, ast.JoinedStr) and not list(_joined(value.values))
        )
        return "" if is_empty else _written(value)
    kept = [item for item in value if not _says_nothing(owner, item)]
    return f"[{' '.join(map(_written, kept))}]" if kept else ""


def _says_nothing(owner: ast.AST, item: object) -> bool:
    """Whether a statement or argument changes nothing that is computed."""
    match item:
        case ast.Import() | ast.ImportFrom() | ast.Pass():
            return True
        case ast.Expr(value=ast.Constant()):  # a docstring
            return True
        case ast.AnnAssign(value=None):  # in a class it makes a field
            return not isinstance(owner, ast.ClassDef)
        case ast.keyword(arg=name):  # of a parameter's field
            return (
                name in _DESCRIBING
                and isinstance(owner, ast.Call)
                and isinstance(owner.func, ast.Name)
                and owner.func.id == "Field"
            )
        case ast.AST():
            return type(item).__name__ == "TypeAlias" or _is_for_type_checkers(item)
    return False


def _constant(value: object) -> str:
    """A constant by type and value: 1, True and 1.0 are three."""
    # Long integers have no decimal text, and `repr` of a string knows the newest letters.
    return f"{type(value).__name__}:{hex(value) if type(value) is int else ascii(value)}"


def _joined(parts: Sequence[ast.expr]) -> Iterator[str]:
    """The parts of an f-string, texts that follow each other as one, none where it is empty."""
    text = ""
    for part in parts:
        if isinstance(part, ast.Constant):
            text += str(part.value)
            continue
        if text:
            yield _constant(text)
        text = ""
        yield _written(part)
    if text:
        yield _constant(text)
