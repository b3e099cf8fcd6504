"""The files a site gives away: readable by others' programs, the same for the same rows, harmless whatever they hold."""

import csv
import json
import re
import shutil
import subprocess

import fake_run
import numpy as np
import pandas as pd
import pytest

from xaibench.leaderboard import render
from xaibench.site import downloads, installed
from xaibench.site.installed import Facts
from xaibench.site.source import read

HOSTILE = "<img src=x onerror=alert(1)> & 50 %_#{\\input x}"
PAPERS = {
    "grad-cam": "Selvaraju et al., ICCV 2017, arXiv 1610.02391",
    "lime": "Doe, ICML 2031 } \\input{x}",
    "random": "control: noise",
}


def tell(group, names, records=()):
    """What plugins say of themselves, without importing any."""
    return {n: Facts(n, "pack 1.0", PAPERS[n]) if n in PAPERS else Facts(n, problem="not here") for n in names}


@pytest.fixture(autouse=True)
def told(monkeypatch):
    monkeypatch.setattr(installed, "facts", tell)


def rows(**names):
    table = fake_run.rows(fake_run.SCORES)
    table = fake_run.fail(table, table["attributor"].eq("lime") & table["utterance"].eq("u1"), note=HOSTILE)
    return table.replace({"attributor": names})


def site(folder, table, record=None):
    source = read([fake_run.write_run(folder / "run", table, record)])
    return downloads.write(source, folder / "site"), folder / "site"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installed, "facts", tell)
        record = fake_run.run_record()
        record["dataset"]["citation"] = "X. Wang et al., Computer Speech & Language 64, 101114, 2020"
        record["countermeasures"]["lcnn"]["card"] = {"paper": "Lavrentyeva et al., Interspeech 2019, arXiv 1904.05576"}
        return site(tmp_path_factory.mktemp("downloads"), rows(), record)


def test_every_file_is_there_with_its_size(plain):
    files, folder = plain
    assert [href for _, href, _ in files] == [f"downloads/{name}" for name, *_ in downloads.FILES]
    assert all((folder / href).stat().st_size == size > 0 for _, href, size in files)
    page = (folder / "downloads/index.html").read_text()
    assert all(f'href="{href.removeprefix("downloads/")}"' in page for _, href, _ in files)
    assert not list(folder.rglob("*.tmp"))


def test_the_board_is_the_one_the_terminal_prints(plain):
    _, folder = plain
    board = pd.read_csv(folder / "downloads/leaderboard.csv")
    assert set(board["attributor"]) == set(fake_run.SCORES)
    found = json.loads((folder / "downloads/leaderboard.json").read_text())
    score = next(r["rank-accuracy"] for r in found["sections"][0]["rows"] if r["attributor"] == "grad-cam")
    assert score == pytest.approx(0.4, abs=0.02)
    arrow = pd.read_parquet(folder / "downloads/leaderboard.parquet").set_index("attributor")
    assert arrow.loc["grad-cam", "rank-accuracy"] == score and arrow.loc["oracle", "kind"] == "ceiling"
    assert (folder / "downloads/leaderboard.md").read_text().startswith("## lcnn (EER 5.0%)")


def test_every_cell_is_in_the_rows(plain):
    _, folder = plain
    given, found = rows(), pd.read_parquet(folder / "downloads/rows.parquet")
    assert len(found) == len(given) and {"eer", "pairs", "dirty", "precision"} <= set(found)
    key = ["attributor", "metric", "utterance", "vocoder"]
    both = given.merge(found, on=key, suffixes=("", "_found"))
    assert len(both) == len(given) and np.array_equal(both["value"], both["value_found"], equal_nan=True)
    failed = found[found["status"].eq("failed")]
    assert len(failed) == 4 and failed["note"].eq(HOSTILE).all() and failed["value"].isna().all()


def test_the_same_rows_make_the_same_bytes_in_whatever_order(plain, tmp_path):
    _, folder = plain
    record = json.loads((folder.parent / "run/run.json").read_text())
    table = rows()
    one = fake_run.write_run(tmp_path / "b", table[table["attributor"].lt("lime")], record)
    two = fake_run.write_run(tmp_path / "a", table[table["attributor"].ge("lime")].sample(frac=1, random_state=0), record)
    for runs in ([one, two], [two, one]):
        downloads.write(read(runs), tmp_path / "site")
        for name, *_ in downloads.FILES:
            assert (tmp_path / "site/downloads" / name).read_bytes() == (folder / "downloads" / name).read_bytes(), name


def test_the_works_of_methods_countermeasures_and_data_are_cited(plain):
    text = (plain[1] / "downloads/methods.bib").read_text()
    assert re.findall(r"^@\w+\{(.*),$", text, flags=re.MULTILINE)[0].startswith("doe2031")
    assert {"selvaraju2017gradcam", "lavrentyeva2019stc", "wang2020asvspoof2019"} <= set(re.findall(r"\{(\w+),\n", text))
    assert "keywords = {countermeasure lcnn}" in text and "keywords = {data set toy}" in text


# --- LaTeX -------------------------------------------------------------------------------------------------------------


def test_the_table_has_blocks_and_the_best_method_in_bold(plain):
    text = (plain[1] / "downloads/leaderboard.tex").read_text()
    blocks = re.findall(r"\\emph\{(\w+)\}", text)
    assert blocks == ["Ceilings", "Methods", "Floors"]
    lines = {line.split(" & ")[0]: line for line in text.splitlines() if " & " in line}
    bold = {name.partition("\\xaibenchcite")[0]: line.count("\\textbf") for name, line in lines.items()}
    # rank-accuracy and its skill are grad-cam's, drop-twin and its skill saliency's; the oracle is better and not in bold
    (best,) = (line for name, line in lines.items() if name.startswith("grad-cam"))
    assert "\\textbf{.401}" in best and " .298 " in best
    assert bold == {"": 0, "oracle": 0, "grad-cam": 2, "saliency": 2, "lime": 0, "inverse-energy": 0, "random": 0}
    assert "\\xaibenchcite{selvaraju2017gradcam}" in lines[next(n for n in lines if n.startswith("grad-cam"))]
    assert "rank-accuracy $\\uparrow$" in text and "\\label{tab:xaibench-lcnn-native-eq2-toy}" in text


def test_a_metric_where_less_is_better_has_its_smallest_in_bold(tmp_path):
    scores = {n: {"deletion-twin": v} for n, v in (("lime", -0.5), ("saliency", 0.2), ("random", 0.4), ("oracle", -1.0))}
    _, folder = site(tmp_path, fake_run.rows(scores))
    text = (folder / "downloads/leaderboard.tex").read_text()
    (line,) = [line for line in text.splitlines() if "\\textbf" in line]
    assert line.startswith("lime") and "\\textbf{$-$." in line and "deletion-twin $\\downarrow$" in text


def balanced(text):
    text = re.sub(r"(?<!\\)%.*", "", text)
    begun, open_ = re.findall(r"\\(begin|end)\{(\w+)\}", text), []
    for what, name in begun:
        if what == "begin":
            open_.append(name)
        else:
            assert open_.pop() == name
    depth = 0
    for sign in re.sub(r"\\[{}]", "", text):
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    return not open_ and depth == 0


def test_tables_are_balanced_and_every_line_has_all_columns(tmp_path, plain):
    _, hostile = site(tmp_path, rows(saliency=HOSTILE, lime="a & b \\\\ \\end{tabular}"))
    for folder in (plain[1], hostile):
        text = (folder / "downloads/leaderboard.tex").read_text()
        assert balanced(text)
        columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1])
        lines = [line for line in text.splitlines() if line.endswith("\\\\") and "\\multicolumn" not in line]
        assert lines and all(len(re.findall(r"(?<!\\)&", line)) == columns - 1 for line in lines)
        assert "\\input" not in text.replace("\\textbackslash{}input", "")


def test_it_compiles(tmp_path, plain):
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here; the structure is tested above")
    if not subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False).stdout.strip():
        pytest.skip("pdflatex is here without booktabs")
    _, hostile = site(tmp_path, rows(saliency=HOSTILE, lime="雨 “ü” ł a & b \\\\ \\end{tabular}"))
    for i, folder in enumerate((plain[1], hostile)):
        shutil.copy(folder / "downloads/leaderboard.tex", tmp_path / f"table{i}.tex")
    body = "\\input{table0}\\newpage\\input{table1}"
    paper = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "paper.tex").write_text(paper)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_page_of_files_is_text(tmp_path):
    _, folder = site(tmp_path, rows(saliency=HOSTILE))
    assert "<img" not in (folder / "downloads/index.html").read_text()
    assert HOSTILE in pd.read_csv(folder / "downloads/leaderboard.csv")["attributor"].to_numpy()
    assert "<img" not in (folder / "downloads/leaderboard.md").read_text()
    assert render.escape(HOSTILE) in (folder / "downloads/leaderboard.md").read_text()


def test_no_cell_of_the_csv_is_a_formula_and_parquet_has_names_as_they_are(tmp_path):
    names = ("=HYPERLINK(1)", "+1", "-2+3", "@SUM(A1)", "lime")
    table = fake_run.rows({name: {"rank-accuracy": 0.1 * i - 0.2} for i, name in enumerate(names)})
    table = fake_run.fail(table, table["attributor"].eq("lime") & table["utterance"].eq("u0"), note="=cmd")
    found = read([fake_run.write_run(tmp_path / "run", table)])
    downloads.write(found, tmp_path)
    with (tmp_path / "downloads" / "leaderboard.csv").open(newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [c for c in cells if c[:1] in ("=", "+", "@", "\t", "\r") or (c[:1] == "-" and not c[1:2].isdigit())]
    assert {f"'{name}" for name in names[:4]} | {"lime"} <= set(cells) and any(c.startswith("-0.") for c in cells)
    assert set(pd.read_parquet(tmp_path / "downloads" / "leaderboard.parquet")["attributor"]) == set(names)
