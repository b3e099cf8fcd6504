"""The page of the plugin contract, made from the source of `xaibench/protocols.py`: text, records, and their comments."""

from __future__ import annotations

import ast
import inspect
import re

from xaibench import protocols

#: In the order in which somebody who writes a plugin meets them.
SHOWN = (
    "attributor", "Attributor", "Countermeasure", "CountermeasureRecipe", "Metric", "Dataset", "Corpus", "Vocoder",
)  # fmt: skip


def page() -> str:
    """The page's text."""
    source = inspect.getsource(protocols)
    tree, lines = ast.parse(source), source.splitlines()
    things = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    title, _, text = inspect.getdoc(protocols).partition("\n")
    out = ["# " + title.rstrip("."), "", "Generated from `xaibench/protocols.py` by `docs/generate.py`; do not edit.", ""]
    out += [_fenced(text.strip(), "text"), "", "## What a method may need", ""]
    out += ["| need | what the view then offers |", "| --- | --- |"]
    out += [f"| `{name}` | {what} |" for name, what in protocols.NEEDS.items()]
    served = ", ".join(f"{api} (until {until})" if until else str(api) for api, until in protocols.SERVED.items())
    out += ["", f"Versions served: {served}. This is version {protocols.API_VERSION}.", ""]
    for name in SHOWN:
        out += _shown(things[name], lines)
    return "\n".join(out).rstrip() + "\n"


def _shown(node: ast.ClassDef | ast.FunctionDef, lines: list[str]) -> list[str]:
    what = "Decorator" if isinstance(node, ast.FunctionDef) else "Protocol" if _is_protocol(node) else "Record"
    out = [f"## {what} `{node.name}`", "", _plain(ast.get_docstring(node) or ""), ""]
    body = node.body if isinstance(node, ast.ClassDef) else []
    fields = [_field(n, lines) for n in body if isinstance(n, ast.AnnAssign) or _is_property(n)]
    if fields:
        out += ["| field | type | default | |", "| --- | --- | --- | --- |"]
        out += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in fields] + [""]
    for n in body:
        if isinstance(n, ast.FunctionDef) and not _is_property(n) and (ast.get_docstring(n) or n.name == "__call__"):
            if n.name.startswith("__") and n.name != "__call__":
                continue
            signature = f"{n.name}({ast.unparse(n.args)}) -> {ast.unparse(n.returns)}"
            out += [f"`{signature}`", "", _plain(ast.get_docstring(n) or "Waveforms to logits."), ""]
    if isinstance(node, ast.FunctionDef):
        arguments = ast.unparse(node.args).removeprefix("*, ").split(", ")
        out += ["```text", f"@{node.name}(", *(f"    {a.replace('=', ' = ')}," for a in arguments), ")", "```", ""]
    return out


def _field(node: ast.AnnAssign | ast.FunctionDef, lines: list[str]) -> tuple[str, str, str, str]:
    """Name, type, default and note of a record's field, or of a protocol's property."""
    if isinstance(node, ast.FunctionDef):
        return f"`{node.name}`", f"`{ast.unparse(node.returns)}`", "", " ".join((ast.get_docstring(node) or "").split())
    default = "" if node.value is None else f"`{_default(node.value)}`"
    note = lines[node.end_lineno - 1].partition("  # ")[2]
    return f"`{node.target.id}`", f"`{ast.unparse(node.annotation)}`", default, note


def _is_property(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(ast.unparse(d) == "property" for d in node.decorator_list)


def _is_protocol(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)


def _default(value: ast.expr) -> str:
    text = ast.unparse(value)
    return "{}" if text == "field(default_factory=dict)" else text


def _fenced(text: str, language: str) -> str:
    """Indented blocks as fenced ones."""
    return re.sub(
        r"(?m)^((?: {4}.*\n?)+)", lambda m: f"```{language}\n{inspect.cleandoc(m[1])}\n```\n", text.rstrip() + "\n"
    ).rstrip()


def _plain(text: str) -> str:
    """A docstring as Markdown: doctests fenced, a list of attributes as a list."""
    doctest = re.compile(r"(?m)^(>>> (?:.+\n?)+)")
    text = doctest.sub(lambda m: f"```pycon\n{m[1].rstrip()}\n```\n", text)
    return re.sub(r"(?m)^([a-z_.]+) {2,}(?=\S)", r"- `\1`: ", text)
