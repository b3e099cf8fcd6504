"""Pages and papers made of an enemy's run: his text is text, in every page, table, script, LaTeX and BibTeX file.

The last test opens them in Chromium, where there is one.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import explorer_run
import fake_run
import hostile_runs as hostile
import pandas as pd
import pytest

from xaibench import maps
from xaibench.errors import XaibenchError, XaibenchWarning
from xaibench.harness import warned
from xaibench.site import installed, references
from xaibench.site.build import build

#: What parquet can hold and a file can be called.
NAMES = [p.encode("utf-8", "replace").decode().replace("\0", "0") for p in hostile.PAYLOADS if p.strip(" .")]


def enemy(folder: Path) -> Path:
    """A run with maps in which every name, note and fact is a payload."""
    run = explorer_run.make(folder, samples=1_000)
    (run / "rows").rename(folder / "rows")
    methods = {name: {"rank-accuracy": i / 99, "drop-twin": 0.3, "deletion-twin": -i} for i, name in enumerate(NAMES)}
    rows = pd.concat([fake_run.rows({**methods, **fake_run.SCORES}, utterances=3)])
    rows = rows[(rows["utterance"] + "/" + rows["vocoder"]).isin(explorer_run.PAIRS)]
    rows["speaker"] = NAMES[0]
    bad = rows["attributor"].eq(NAMES[1]) & rows["metric"].eq("rank-accuracy")
    rows = fake_run.fail(rows, bad, note=NAMES[2])
    facts = {"grid": f"{explorer_run.RATE}/128/50/hann", "truth": "eq2"}
    for number, pair in enumerate(explorer_run.PAIRS):
        kept = maps.read_map(next(one.path for one in maps.kept(run, pair)))
        for name in NAMES[number::3]:
            with suppress(XaibenchError):  # a name that no file can have has no map
                maps.write_map(maps.map_path(run, "lcnn", "native", name, pair), kept.values, metadata=facts)
    content = hostile.record()
    card = content["countermeasures"]["lcnn"]["card"]
    for number, key in enumerate([k for k in card if k not in ("n_samples", "sample_rate", "eer")]):
        card[key] = NAMES[number]
    card["eer"] = {NAMES[3]: {NAMES[4]: {NAMES[5]: 0.1}}}
    content["countermeasures"]["lcnn"] |= {"void": NAMES[6], "checkpoint": NAMES[7], "options": {NAMES[8]: NAMES[9]}}
    content["dataset"] |= {"licence": NAMES[10], "citation": "; ".join(NAMES), "utterances": 3, "pairs": 3}
    content["origins"] = {f"attributors/{name}": NAMES[i - 1] for i, name in enumerate(NAMES)}
    content["plugins"] = {
        f"attributors/{name}": {"paper": NAMES[-1 - i], "summary": name, "needs": [name], "flags": [name, "signed"],
                                "options": {name: name}}
        for i, name in enumerate(NAMES)
    }  # fmt: skip
    content["environment"] |= {"git_commit": NAMES[0], "packages": {NAMES[1]: NAMES[2]}}
    content["days"] = [NAMES[11]]
    (run / "preflight").mkdir()
    checks = [{"name": "answers", "outcome": "failed", "measured": 1.0, "tolerance": 0.1, "note": NAMES[12], "voids": True}]
    (run / "preflight" / "lcnn.json").write_text(json.dumps({"void": "x", "checks": checks}), encoding="utf-8")
    hostile.write(run, rows, content)
    (run / "warnings/lcnn/native-eq2/any").mkdir(parents=True)
    said = [{"by": name, "said": name, "utterances": ["u0/griffinlim"]} for name in NAMES]
    cell = {"schema": warned.SCHEMA, "countermeasure": "lcnn", "route": "native", "truth": "eq2", "attributor": NAMES[0]}
    (run / "warnings/lcnn/native-eq2/any/00000-000000000000.json").write_text(
        json.dumps({**cell, "warnings": said}), encoding="utf-8"
    )
    return run


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("enemy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installed, "_ask", lambda group, names, records=(): {})
        with pytest.warns(XaibenchWarning, match="unknown dataset"):
            build([enemy(folder)], folder / "site")
    assert {p.name for p in folder.iterdir()} == {"run", "rows", "audio", "site"}
    return folder / "site"


def test_no_payload_is_more_than_text_in_any_page(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(NAMES) and not hostile.faults_of_pages(site)
    assert sum(hostile.OWNED in page.read_text(encoding="utf-8") for page in pages) > 50, "they are there, as text"


def test_the_check_of_pages_finds_what_it_is_for(tmp_path):
    for bad in ('<img src=x onerror="owned=1">', '<a href="javascript:owned=1">x</a>', "<script>owned=1</script>", "<owned>",
                '<a href="//owned.example">', '<b owned="1">', "<!-- owned -->", "<iframe></iframe>", "<p>a\u202eb</p>",
                '<img src="https://owned.example/x">', '<p style="x:owned">', '<a href="\tjavascript:1">'):  # fmt: skip
        head = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
        (tmp_path / "x.html").write_text(f"<!doctype html>{head}{bad}", encoding="utf-8")
        assert hostile.faults_of_pages(tmp_path), bad
        (tmp_path / "x.html").write_text(head + bad.replace("<", "&lt;").replace("\u202e", ""), encoding="utf-8")
        assert not hostile.faults_of_pages(tmp_path)
    (tmp_path / "x.html").write_text("<p>a</p>", encoding="utf-8")
    assert hostile.faults_of_pages(tmp_path) == ["x.html: no policy"]


def test_every_file_of_a_site_has_a_name_that_any_system_takes(site):
    taken = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
    for path in site.rglob("*"):
        assert re.fullmatch(r"[A-Za-z0-9+._-]{1,100}", path.name) and not taken.fullmatch(path.name), path.name
        assert not path.is_symlink()


def test_scripts_hold_payloads_as_json_only(site):
    for path in (site / "explorer").rglob("*.js"):
        text = path.read_bytes().decode("utf-16" if path.read_bytes()[:2] == b"\xff\xfe" else "utf-8")
        call = re.fullmatch(r"[\w.]+\((.*)\);\n", text, re.DOTALL)
        assert call, path.name
        assert not set("<>&\u2028\u2029") & set(text), path.name
        json.loads("[" + call[1].replace('["__proto__"]:', '"__proto__":') + "]")


def test_latex_and_bibtex_hold_no_command_of_an_enemy(site):
    for name in ("leaderboard.tex", "methods.bib"):
        text = (site / "downloads" / name).read_text(encoding="utf-8")
        assert "\\input{/" not in text and "\\write18" not in text and "@string{owned" not in text
        assert text.isascii() and not hostile.faults_of_lines(text)
        plain = re.sub(r"\\[{}\\%&$#_]", "", text)
        assert plain.count("{") == plain.count("}")


def test_tables_of_a_site_hold_no_formula_and_no_image(site):
    for line in (site / "downloads" / "leaderboard.csv").read_text(encoding="utf-8").splitlines():
        assert line.lstrip()[:1] not in "=+@-", line
    markdown = pytest.importorskip("markdown_it", reason="markdown-it-py comes with rich")
    text = (site / "downloads" / "leaderboard.md").read_text(encoding="utf-8")
    page = markdown.MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)
    assert not re.search(r"<(img|a|script|svg|style)\b", page)


@pytest.mark.parametrize("text", ["a" * 60_000, "A. " * 20_000, "A, " * 20_000, "Aa Bb, " * 9_000, "10.1234/" * 9_000])
def test_a_citation_of_any_length_is_read(text):
    """A search that doubles back would take hours."""
    assert references.bibliography({"x": text}).count("@") == len(references.references(text))


def test_a_browser_runs_nothing_of_an_enemy(site, chromium):
    """No dialog, no request out of the site, nothing set, on the first page and one page of each kind."""
    pages = [site / "index.html", site / "explorer.html"]
    pages += [sorted((site / kind).glob("*.html"))[-1] for kind in ("boards", "methods", "countermeasures", "downloads")]
    dialogs, foreign = [], []
    with chromium.new_context() as context:
        page = context.new_page()
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda r: foreign.append(r.url) if not r.url.startswith(("file://", "data:", "blob:")) else None)
        for path in pages:
            page.goto(path.as_uri())
            page.wait_for_load_state("networkidle")
            assert page.evaluate("typeof window.owned") == "undefined", path.name
            assert page.evaluate("document.querySelectorAll('[onerror],[onload],[onmouseover],iframe,object').length") == 0
    assert not dialogs and not foreign
