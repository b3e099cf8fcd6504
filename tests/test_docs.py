"""Generated pages are fresh, and the README's plugin works (all other code: test_docs_code.py)."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import torch
from toys import LinearCM, view_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_catalogue_page_is_fresh():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["page"]()
    assert page == (ROOT / "docs" / "catalog.md").read_text(encoding="utf-8"), "run python docs/generate.py"


def test_the_page_of_commands_is_fresh():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["commands"]()
    assert page == (ROOT / "docs" / "commands.md").read_text(encoding="utf-8"), "run python docs/generate.py"


def test_the_page_of_countermeasures_is_fresh():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["countermeasures"]()
    assert page == (ROOT / "docs" / "countermeasures.md").read_text(encoding="utf-8"), "run python docs/generate.py"


def test_the_page_of_the_contract_is_fresh():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["contract"]()
    assert page == (ROOT / "docs" / "contract.md").read_text(encoding="utf-8"), "run python docs/generate.py"


def test_the_page_of_rules_is_fresh():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["rules"]()
    assert page == (ROOT / "docs" / "check.md").read_text(encoding="utf-8"), "run python docs/generate.py"


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


def test_links_and_pictures_of_the_readme_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
