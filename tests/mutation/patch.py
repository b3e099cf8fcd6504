"""Puts a mutant's code into a module that is loaded already: into its functions, so that whoever imported them has it.

The mutant's source is run as a module of its own; its functions' code and defaults then replace those of the functions of
the same name, in classes, properties and wrappers too. Of constants only the one that was changed is replaced, wherever it
was imported to.
"""

from __future__ import annotations

import ast
import sys
from functools import cached_property
from pathlib import Path
from types import FunctionType, ModuleType

ROOT = Path(__file__).resolve().parents[2]


def put(mutant: object) -> None:
    """Replace what the mutant changes, in this process."""
    name = mutant.file.removesuffix(".py").replace("/", ".")
    live = sys.modules[name]
    made = ModuleType(name)
    made.__file__ = live.__file__
    sys.modules[name] = made  # dataclasses look their own module up
    try:
        exec(compile(mutant.source, live.__file__, "exec"), vars(made))
    finally:
        sys.modules[name] = live
    for key, new in list(vars(made).items()):
        _replace(vars(live).get(key), new, name)
    for key in _constants(mutant):
        old = vars(live)[key]
        for module in list(sys.modules.values()):
            for attribute, value in list(getattr(module, "__dict__", {}).items()):
                if attribute == key and value is old:
                    setattr(module, attribute, vars(made)[key])


def _replace(old: object, new: object, module: str) -> None:
    if isinstance(old, property) and isinstance(new, property):
        _replace(old.fget, new.fget, module)
    elif isinstance(old, cached_property) and isinstance(new, cached_property):
        _replace(old.func, new.func, module)
    elif isinstance(old, type) and isinstance(new, type) and old.__module__ == new.__module__ == module:
        for key, value in list(vars(new).items()):
            own = vars(old).get(key)
            if isinstance(own, int | float | str | tuple | bool | None) and own != value and not key.startswith("__"):
                setattr(old, key, value)  # a field's default
            else:
                _replace(own, value, module)
    elif isinstance(old, FunctionType) and isinstance(new, FunctionType):
        if hasattr(old, "__wrapped__"):
            _replace(old.__wrapped__, new.__wrapped__, module)
        elif old.__module__ == module:
            old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
    elif hasattr(old, "__wrapped__") and hasattr(new, "__wrapped__"):
        _replace(old.__wrapped__, new.__wrapped__, module)


def _constants(mutant: object) -> list[str]:
    """The names that the changed statement binds, where it stands in the module itself."""
    original = ast.parse((ROOT / mutant.file).read_text(encoding="utf-8"))
    for node in original.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.lineno <= mutant.line <= node.end_lineno:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return []
