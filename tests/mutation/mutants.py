"""Mutants of a module: its source with one small mistake each, by mutmut's operators (`pip install 'xaibench[mutation]'`).

`mutmut run` itself copies the tree and leaves out whatever is decorated and every module constant; here properties, cached
properties and constants are mutated too. Left out, as by mutmut: annotations, decorators, docstrings, arguments of `len`
and `isinstance`, and `if TYPE_CHECKING`.

Reference: DeMillo, Lipton, Sayward, "Hints on test data selection", IEEE Computer 11 (1978).
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """One mistake: where it is, the line before and after it, and the whole source that holds it."""

    file: str  # relative to the repository, such as xaibench/truth.py
    number: int  # among the mutants of its file
    line: int
    before: str
    after: str
    source: str

    @property
    def name(self) -> str:
        """Such as `xaibench/truth.py:17`, 17th mutant, not 17th line."""
        return f"{self.file}:{self.number}"


def mutants_of(path: Path, root: Path, *, others: bool = False) -> list[Mutant]:
    """Every mutant of a file, in the order of its lines; those that read the same are one.

    others: by other operators than mutmut's, so that tests are not only as good as the mistakes they were written for: one
    less, another comparison, another sign, the opposite condition, a statement left out (as in cosmic-ray).
    """
    import libcst as cst
    from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper
    from mutmut.mutation.mutators import mutation_operators

    operators = _others() if others else mutation_operators

    class Visitor(cst.CSTVisitor):
        METADATA_DEPENDENCIES = (ByteSpanPositionProvider,)

        def __init__(self) -> None:
            super().__init__()
            self.found: list[tuple[int, int, cst.CSTNode, cst.CSTNode]] = []

        def on_visit(self, node: cst.CSTNode) -> bool:
            if _left_out(node):
                return False
            span = self.get_metadata(ByteSpanPositionProvider, node, None)
            for kind, operator in operators:
                if isinstance(node, kind):
                    self.found += [(span.start, span.start + span.length, node, mutated) for mutated in operator(node)]
            return True

    text = path.read_text(encoding="utf-8")
    wrapper, visitor = MetadataWrapper(cst.parse_module(text)), Visitor()
    wrapper.visit(visitor)
    code, sources = text.encode(), {}
    for start, end, node, mutated in visitor.found:
        old, new = (wrapper.module.code_for_node(n).strip() for n in (node, mutated))
        if code[start:end] == old.encode():  # as nearly always: writing the whole tree takes a hundred times as long
            source = (code[:start] + new.encode() + code[end:]).decode()
        else:
            source = wrapper.module.deep_replace(node, mutated).code
        sources.setdefault(source, None)
    sources.pop(text, None)
    changes = sorted((_change(text.splitlines(), source.splitlines()), source) for source in sources)
    return [
        Mutant(str(path.relative_to(root)), number, *change, source)
        for number, (change, source) in enumerate(changes, start=1)
    ]


def original_of(path: Path, root: Path) -> Mutant:
    """The file itself, as a mutant that changes nothing."""
    return Mutant(str(path.relative_to(root)), 0, 0, "", "", path.read_text(encoding="utf-8"))


def _others() -> list[tuple[type, Callable]]:
    import libcst as cst

    turned = {
        cst.LessThan: cst.GreaterThan, cst.GreaterThan: cst.LessThan, cst.LessThanEqual: cst.GreaterThanEqual,
        cst.GreaterThanEqual: cst.LessThanEqual, cst.Equal: cst.LessThanEqual, cst.NotEqual: cst.LessThan,
        cst.Add: cst.Multiply, cst.Subtract: cst.Multiply, cst.Multiply: cst.Add, cst.Divide: cst.Subtract,
        cst.FloorDivide: cst.Modulo, cst.Power: cst.Add, cst.BitAnd: cst.BitXor, cst.BitOr: cst.BitXor,
    }  # fmt: skip

    def less(node: cst.Integer) -> list[cst.CSTNode]:
        return [cst.parse_expression(f"({node.evaluated_value - 1})")]

    def turn(node: cst.BinaryOperation | cst.ComparisonTarget) -> list[cst.CSTNode]:
        other = turned.get(type(node.operator))
        return [node.with_changes(operator=other())] if other else []

    def oppose(node: cst.If) -> list[cst.CSTNode]:
        inner = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        return [node.with_changes(test=cst.UnaryOperation(cst.Not(), inner))]

    def leave_out(node: cst.Raise | cst.Expr | cst.AugAssign) -> list[cst.CSTNode]:
        return [] if isinstance(node, cst.Expr) and isinstance(node.value, cst.BaseString) else [cst.Pass()]

    kinds = {cst.Integer: less, cst.BinaryOperation: turn, cst.ComparisonTarget: turn, cst.If: oppose}
    return [*kinds.items(), *((kind, leave_out) for kind in (cst.Raise, cst.Expr, cst.AugAssign))]


def _left_out(node: object) -> bool:
    import libcst as cst
    import libcst.matchers as m

    return (
        isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom)
        or m.matches(node, m.Call(func=m.Name("len") | m.Name("isinstance") | m.Name("TypeVar")))
        or m.matches(node, m.If(test=m.Name("TYPE_CHECKING")))
    )


def _change(old: list[str], new: list[str]) -> tuple[int, str, str]:
    """The number of the first line that differs, and what stands from there to the last, before and after, each as one."""
    first = next(i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    same = next(i for i, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b)
    before, after = (" ".join(line.strip() for line in lines[first : len(lines) - same]) for lines in (old, new))
    return first + 1, before, after


def accepted() -> list[dict]:
    """The reasons for which mutants may survive."""
    return tomllib.loads((Path(__file__).parent / "accepted.toml").read_text(encoding="utf-8"))["reason"]


def why_of(row: dict) -> str | None:
    """The reason for a survivor, where there is one. Each of its changes names a part of the line, what is lost of it and
    what it becomes, all of which must hold.
    """
    before, after = row["before"], row["after"]

    def one(line: str, lost: str, becomes: str) -> bool:
        less, more = after.count(lost) < before.count(lost), after.count(becomes) > before.count(becomes)
        return line in before and (less or not lost) and (more or not becomes)

    return next((r["why"] for r in accepted() if any(one(*change) for change in r["changes"])), None)
