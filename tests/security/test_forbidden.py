"""What no file of xaibench or of a first-party plugin may do: run what it read, hand a shell a string, call another host.

By the syntax tree, so that no line of the house does it unseen. What is allowed all the same is in `ALLOWED`, each with its
reason; a reason that nothing needs any more is a failure too. The attacks themselves are in the other files of this folder.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path
    for path in (*(ROOT / "xaibench").rglob("*.py"), *(ROOT / "plugins").rglob("*.py"))
    if not {"tests", "rebuild", "build", "dist", ".venv"} & set(path.relative_to(ROOT).parts)
)
TEMPLATES = sorted(p for p in (ROOT / "xaibench").rglob("*.j2") if "scaffold" not in p.parts)

#: Modules that unpickle, run text or talk to others.
MODULES = {
    "pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "codeop", "ctypes", "webbrowser", "ssl",
    "urllib.request", "http", "ftplib", "smtplib", "telnetlib", "xmlrpc", "requests", "httpx", "aiohttp", "urllib3",
    "socketserver", "tarfile", "yaml", "xml", "lxml",
}  # fmt: skip
#: Calls by the end of their dotted name.
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pty.spawn", "np.load", "numpy.load", "torch.load",
    "torch.jit.load", "torch.package.PackageImporter", "read_pickle", "to_pickle", "unpack_archive", "extractall", "extract",
    "mktemp", "hub.load", "load_state_dict_from_url", "torch.save", "fromfile", "memmap", "chmod", "set_start_method",
}  # fmt: skip
#: Methods that evaluate a string where they belong to a table; a model's `eval()` has no argument.
WITH_ARGUMENT = {"eval", "query"}

ALLOWED = {
    ("xaibench/harness/device.py", "ctypes"): "asks the C library to keep or return memory",
    ("xaibench/harness/nursery.py", "ctypes"): "asks the kernel to end a worker with its parent",
    ("xaibench/scaffold/package.py", "autoescape"): "writes Python and TOML; names are checked before",
    ("xaibench/training.py", "torch.save"): "the state of a training, read back by `states.load_state`",
    ("plugins/countermeasures/xaibench_countermeasures/tca.py", "query"): "a layer of attention, no table",
    ("xaibench/harness/isolate.py", "pickle"): "writes tasks for its own worker; reads answers by `harness.answers`",
    ("xaibench/harness/isolated.py", "pickle"): "the worker reads what its parent wrote",
    ("xaibench/harness/answers.py", "pickle"): "writes answers; they are read by `unpickle`",
    ("xaibench/unpickle.py", "pickle"): "opcodes for a machine that imports nothing and calls stand-ins",
    ("xaibench/testing/generic.py", "pickle"): "asks whether a plugin's object survives pickling; reads what it just wrote",
}


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an expression; what is not a name is left out."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def ends_in(name: str, names: set[str]) -> str:
    return next((n for n in names if name == n or name.endswith(f".{n}")), "")


def imported(node: ast.AST) -> Iterator[str]:
    """Forbidden modules that a statement imports."""
    names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom):
        names = [str(node.module), *(f"{node.module}.{a.name}" for a in node.names)]
    for name in names:
        if found := next((m for m in MODULES if name == m or name.startswith(f"{m}.")), ""):
            yield found


def called(node: ast.AST) -> Iterator[str]:
    """Forbidden calls, and calls with a forbidden argument."""
    if not isinstance(node, ast.Call):
        return
    name = dotted(node.func)
    given = {k.arg: k.value for k in node.keywords}
    found = ends_in(name, CALLS)
    if found in ("eval", "exec", "compile") and not isinstance(node.func, ast.Name) and not name.startswith("builtins."):
        found = ""  # `re.compile`, a model's `eval()`; a table's are below
    if found == "torch.load" and isinstance(only := given.get("weights_only"), ast.Constant) and only.value is True:
        found = ""
    if found:
        yield found
    if isinstance(node.func, ast.Attribute) and node.func.attr in WITH_ARGUMENT and node.args:
        yield node.func.attr
    for option, dangerous in (("shell", True), ("allow_pickle", True), ("autoescape", False), ("trust_remote_code", True)):
        if option in given and not (isinstance(given[option], ast.Constant) and given[option].value is not dangerous):
            yield option


def forbidden(tree: ast.AST) -> set[str]:
    return {found for node in ast.walk(tree) for look in (imported, called) for found in look(node)}


def test_nothing_forbidden_is_done_and_no_exception_is_without_use():
    found = {
        (path.relative_to(ROOT).as_posix(), what)
        for path in FILES
        for what in forbidden(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert len(FILES) > 200
    assert found - set(ALLOWED) == set(), "if there is a good reason, add it to ALLOWED"
    assert set(ALLOWED) - found == set(), "no longer needed: remove it from ALLOWED"


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import pickle", "pickle"), ("from pickle import loads", "pickle"),
        ("import urllib.request as u", "urllib.request"),
        ("from urllib import request", "urllib.request"), ("eval('1')", "eval"), ("builtins.exec(x)", "exec"),
        ("np.load(path)", "np.load"), ("torch.load(path)", "torch.load"),
        ("torch.load(p, weights_only=False)", "torch.load"),
        ("torch.load(p, weights_only=x)", "torch.load"), ("subprocess.run('ls', shell=True)", "shell"),
        ("run(x, shell=y)", "shell"), ("os.system('ls')", "os.system"), ("table.query('a > 1')", "query"),
        ("table.eval(text)", "eval"), ("archive.extractall(out)", "extractall"),
        ("np.load(p, allow_pickle=True)", "np.load"),
        ("Environment(autoescape=False)", "autoescape"), ("Model.of(name, trust_remote_code=True)", "trust_remote_code"),
    ],
)  # fmt: skip
def test_what_is_forbidden_is_seen(code, what):
    assert what in forbidden(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    ["model.eval()", "re.compile(x)", "torch.load(p, weights_only=True)", "run(x, shell=False)", "import urllib.parse"],
)
def test_what_is_harmless_is_not(code):
    assert forbidden(ast.parse(code)) == set()


def test_no_template_trusts_a_value():
    assert len(TEMPLATES) > 5
    for path in TEMPLATES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape\s+false|\son\w+\s*=\s*[\"']", text), path.name
