"""The documentation is tested: generated pages are fresh, and the code in the README runs."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from toys import LinearCM, view_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_catalogue_page_is_fresh():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["page"]()
    assert page == (ROOT / "docs" / "catalog.md").read_text(encoding="utf-8"), "run python docs/generate.py"


def test_the_page_of_countermeasures_is_fresh():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["countermeasures"]()
    assert page == (ROOT / "docs" / "countermeasures.md").read_text(encoding="utf-8"), "run python docs/generate.py"


def test_the_page_of_the_contract_is_fresh():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["contract"]()
    assert page == (ROOT / "docs" / "contract.md").read_text(encoding="utf-8"), "run python docs/generate.py"


def test_the_error_rates_of_the_readme_are_those_of_the_cards():
    assert runpy.run_path(str(ROOT / "docs" / "generate.py"))["readme"](README) == README, "run python docs/generate.py"


def test_the_readmes_plugin_works_and_is_short(tmp_path, monkeypatch):
    (source,) = [b for b in blocks("python") if "@attributor" in b]
    assert len(source.strip().splitlines()) <= 10
    (tmp_path / "readme_plugin.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    import readme_plugin

    cm = LinearCM()
    torch.testing.assert_close(readme_plugin.my_method(view_of(cm)).values, cm.exact(view_of(cm)), rtol=1e-4, atol=1e-6)
    sys.modules.pop("readme_plugin")


def test_the_readmes_python_reads_a_run(tmp_path, monkeypatch):
    from fake_run import SCORES, rows, write_run

    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "results" / "demo", rows(SCORES))
    for source in blocks("python"):
        if "read_parquet" in source:
            exec(compile(source, "README.md", "exec"), {})
            return
    pytest.fail("the README no longer shows how to read a run")


def test_every_command_of_the_readme_exists():
    from typer.main import get_command

    from xaibench.cli import app

    lines = re.findall(r"^xaibench (.+)$", "\n".join(blocks("bash")), flags=re.M)
    assert lines
    for line in lines:
        words, command = line.partition("#")[0].split(), get_command(app)
        while hasattr(command, "commands"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        known = {o for p in command.params for o in p.opts}
        assert {w for w in words if w.startswith("--")} <= known, line


def test_links_and_pictures_of_the_readme_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
