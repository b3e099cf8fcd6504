"""The files a stranger meets first: they parse, and say what is true of this version."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
KINDS = {"markdown", "input", "textarea", "dropdown", "checkboxes"}


def test_the_citation_is_of_this_version_and_has_what_the_format_asks_for():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert found["cff-version"] == "1.2.0" and found["type"] == "software" and found["message"] and found["title"]
    assert (found["version"], found["license"]) == (project["version"], project["license"])
    assert found["authors"] == [{"name": "The xaibench authors"}]


@pytest.mark.parametrize("path", FORMS, ids=lambda p: p.stem)
def test_an_issue_form_is_one(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(form) <= {"name", "description", "title", "labels", "body"} and form["name"] and form["description"]
    assert {part["type"] for part in form["body"]} <= KINDS
    asked = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(asked) == len(set(asked)) and all(part["attributes"].get("label") for part in form["body"] if "id" in part)


def test_the_form_for_the_board_asks_what_the_board_needs():
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "add-my-method.yml").read_text(encoding="utf-8"))
    needed = {part["id"] for part in form["body"] if part.get("validations", {}).get("required")}
    assert needed == {"method", "package", "paper", "pack", "verdict", "training"}
