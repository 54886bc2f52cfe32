"""What a recipe is made of: its digest changes with the code that makes the model and with nothing else in the file."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator

INNER = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
)  # fmt: skip


def recipe_digest(source: bytes) -> str:
    """SHA-256 over the expression given as `recipe=` and everything in the file that it reaches by name.

    Comments, layout, docstrings, the contract and the policies do not count. Where the expression cannot be found
    (the pipeline is not made by a plain call) the whole file counts.
    """
    module = ast.parse(source)
    given = [
        (node, keyword.value)
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and not _is_challenger(node)
        for keyword in node.keywords
        if keyword.arg == "recipe"
    ]
    if len(given) != 1:
        return _sha256([module])
    return _sha256(_reached(module, given[0][1]))


def challenger_digest(source: bytes, name: str) -> str:
    """The same of `Challenger("name", …)`, its settings included.

    Where no such call stands outside of every function, loop and comprehension, its settings may come from anywhere:
    the whole file counts, beside the name.
    """
    module = ast.parse(source)
    nodes = (node for statement in module.body for node in _outside_functions(statement))
    calls = [node for node in nodes if isinstance(node, ast.Call) and _is_challenger(node) and _is_named(node, name)]
    if len(calls) != 1:
        return _sha256([ast.Constant(name), module])
    return _sha256(_reached(module, calls[0]))


def _is_challenger(call: ast.Call) -> bool:
    return "Challenger" in (getattr(call.func, "id", None), getattr(call.func, "attr", None))


def _is_named(call: ast.Call, name: str) -> bool:
    names = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg == "name")]
    return [getattr(one, "value", None) for one in names] == [name]


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what stands in it, but not what runs with names that the file's top level does not know."""
    if isinstance(node, INNER):
        return
    yield node
    for part in ast.iter_child_nodes(node):
        yield from _outside_functions(part)


def _reached(module: ast.Module, expression: ast.expr) -> list[ast.AST]:
    """An expression, and every statement of the file that it reaches by name."""
    definitions = _definitions(module)
    reached: dict[ast.stmt, None] = {}
    todo: list[ast.AST] = [expression]
    while todo:
        for name in _names(todo.pop()):
            for statement in definitions.get(name, ()):
                if statement not in reached:
                    reached[statement] = None
                    todo.append(statement)
    return [expression, *sorted(reached, key=module.body.index)]


def _definitions(module: ast.Module) -> dict[str, list[ast.stmt]]:
    """Name → the statements of the file's top level that bind it or may change what it stands for."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in module.body:
        for name in _changed(statement):
            found.setdefault(name, []).append(statement)
    return found


def _changed(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Expr):  # a call such as MODELS.update(…)
        return _names(statement)
    names = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return names


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _sha256(nodes: list[ast.AST]) -> str:
    return hashlib.sha256("\n".join(ast.dump(_without_docstrings(node)) for node in nodes).encode()).hexdigest()


def _without_docstrings(node: ast.AST) -> ast.AST:
    for part in ast.walk(node):
        match part:
            case ast.Module() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if ast.get_docstring(part, clean=False) is not None:
                    del part.body[0]
    return node
