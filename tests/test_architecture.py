"""Who imports whom, and the house rules that a machine can check.

Modules get a storey; an import may only go down or stay on the same one, and never in a circle. Imports inside functions
count, those under `if TYPE_CHECKING` do not: they never run.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "xaibench"
MODULES = {
    ".".join(("xaibench", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
PLUGIN_FILES = sorted(p for p in (ROOT / "plugins").rglob("*.py") if not {"build", "dist", ".venv"} & set(p.parts))

#: Storeys by the first name below `xaibench`. What is not listed lives on MIDDLE: above the records and the maths, below
#: the harness.
STOREYS = {
    "errors": 0, "files": 1, "numbers": 1, "reading": 1, "tables": 1, "types": 1, "protocols": 2, "screen": 2, "grid": 2,
    "audio": 2,
    "project": 3, "truth": 3, "layers": 3, "scoring": 3, "weights": 3, "manifest": 3, "frontends": 3, "passes": 3,
    "precision": 3, "backward": 3, "view": 3,
    "metrics": 4, "controls": 4, "extremal": 4,
    "harness": 6, "audit": 7, "det": 7, "evaluation": 7, "testing": 7, "leaderboard": 7, "figures": 7, "diagrams": 7,
    "site": 7, "analysis": 7, "mean_audio": 7, "api": 7,
    "listen": 7, "listening": 7, "submission": 7, "scaffold": 7, "cli": 8,
}  # fmt: skip
MIDDLE = 5


def storey(module: str) -> int:
    parts = module.split(".")
    return STOREYS.get(parts[1], MIDDLE) if len(parts) > 1 else -1  # `xaibench` itself holds the version only


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that can run: all but the bodies of `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from (n for other in node.orelse for n in (other, *running(other)))
            continue
        yield node
        yield from running(node)


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports; `from a import b` counts as `a.b` where that is a module of ours, else as `a`."""
    found: set[str] = set()
    for node in running(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level and PACKAGE not in path.parents:
                continue  # a plugin's own
            assert node.level == 0, f"{path}:{node.lineno}: relative import; the house writes the whole name"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
    return found


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "xaibench"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_never_go_up(module):
    above = {name for name in ours(MODULES[module]) if storey(name) > storey(module)}
    assert not above, f"{module} (storey {storey(module)}) imports {sorted(above)}, which live above it"


def test_imports_have_no_circle():
    graph = {module: ours(path) & set(MODULES) - {module} for module, path in MODULES.items()}
    while graph:
        leaves = {module for module, needs in graph.items() if not needs & set(graph)}
        assert leaves, f"a circle of imports among {sorted(graph)}"
        graph = {module: needs for module, needs in graph.items() if module not in leaves}


def test_the_rule_would_see_an_import_that_goes_up(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from xaibench.view import View\n"
        "else:\n    import xaibench.grid\ndef f():\n    from xaibench import truth\n    from xaibench.types import Axis\n"
    )
    assert ours(path) == {"xaibench.grid", "xaibench.truth", "xaibench.types"}


@pytest.mark.parametrize("path", PLUGIN_FILES, ids=lambda p: str(p.relative_to(ROOT / "plugins")))
def test_plugins_never_import_the_harness_or_the_command_line(path):
    if "tests" in path.parts:
        return
    above = {name for name in ours(path) if name.split(".")[1:2] in (["harness"], ["cli"])}
    assert not above, f"{path}: imports {sorted(above)}; a plugin has types, protocols, view, frontends and their like"


@pytest.mark.parametrize("path", [*MODULES.values(), *PLUGIN_FILES], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_opens_with_a_docstring(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path}: no docstring at its head"


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_and_class_has_a_docstring(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    bare = [n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_") and not ast.get_docstring(n)]
    assert not bare, f"{module}: no docstring on {', '.join(bare)}"


def breaches(path: Path) -> list[str]:
    """`print`, a bare `except`, one that catches everything and says nothing, and calls that end the process."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("print", "pprint", "exit", "quit", "sys.exit", "os._exit"):
                found.append(f"{where}: {name}()")
        elif isinstance(node, ast.Raise) and node.exc is not None and "SystemExit" in ast.unparse(node.exc):
            found.append(f"{where}: raise SystemExit")
        elif isinstance(node, ast.ExceptHandler):
            if node.type is None:
                found.append(f"{where}: bare except")
            elif ast.unparse(node.type) in ("Exception", "BaseException") and isinstance(node.body[0], ast.Pass):
                found.append(f"{where}: swallows every exception")
    return found


@pytest.mark.parametrize(
    "path",
    [p for p in (*MODULES.values(), *PLUGIN_FILES) if p.parent.name != "cli" and not {"tests", "rebuild"} & set(p.parts)],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_only_the_command_line_prints_and_exits(path):
    assert not breaches(path)


@pytest.mark.parametrize(
    "line",
    ["print(1)", "try:\n    f()\nexcept:\n    g()", "import sys\nsys.exit(1)", "raise SystemExit", "raise SystemExit(2)",
     "try:\n    f()\nexcept Exception:\n    pass"],
)  # fmt: skip
def test_the_rule_would_see_a_breach(tmp_path, line):
    path = tmp_path / "x.py"
    path.write_text(line)
    assert len(breaches(path)) == 1


def committed() -> list[Path]:
    """Files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [p for p in (ROOT / name for name in done.stdout.split("\0") if name) if p.is_file()]


def test_no_file_names_a_place_on_the_machine_it_was_written_on():
    places = [f"/{top}/".encode() for top in ("work", "root")] + [b"/tmp" + b"/w"]
    found = []
    for path in committed():
        content = path.read_bytes()
        if b"\0" not in content[:8_192]:  # text
            found += [f"{path.relative_to(ROOT)}: {p.decode()}" for p in places if p in content]
    assert not found


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nsys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_records_contract_and_manifests_need_no_torch():
    names = ["protocols", "types", "errors", "manifest"] + [n for n in ("registry",) if f"xaibench.{n}" in MODULES]
    loaded = loaded_after("import " + ", ".join(f"xaibench.{n}" for n in names))
    assert "xaibench" in loaded and not loaded & {"torch", "matplotlib", "pandas"}


def test_leaderboard_and_statistics_need_no_torch():
    modules = [m for m in MODULES if m.split(".")[1:2] in (["leaderboard"], ["stats"])]
    assert len(modules) > 1
    assert "torch" not in loaded_after("import " + ", ".join(modules))
