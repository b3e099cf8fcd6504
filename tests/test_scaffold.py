"""What `xaibench plugin new` writes, used as a stranger would: installed, tested, listed, checked, run; and hostile names.

The packages are built into wheels by hatchling and unpacked in a folder of their own, as `pip install` does; no network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from xaibench.errors import PluginError
from xaibench.protocols import API_VERSION, NAME
from xaibench.scaffold import package
from xaibench.scaffold.example import recordings
from xaibench.scaffold.names import KINDS, names_of, refuse_taken
from xaibench.scaffold.package import NOBODY, TEMPLATES, git_author, render, write

LONGEST = "a" + "-very-long-name" * 4 + "-2x"  # 64 characters


def plugin(kind: str) -> str:
    return f"scaffolded-{kind}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All five kinds: sources in `src`, installed in `site`."""
    home = tmp_path_factory.mktemp("scaffold")
    for kind in KINDS:
        names = names_of(kind, plugin(kind))
        folder = home / "src" / names.distribution
        write(render(names, author='Zoë "Z" Ångström', year=2031), folder)
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(home / "wheels")]
        done = subprocess.run(build, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for wheel in (home / "wheels").glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(home / "site")
    return home


def run(home: Path, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A Python command in which the five packages are installed."""
    path = os.pathsep.join(filter(None, (str(home / "site"), os.environ.get("PYTHONPATH"))))
    here = ",".join((*(f"xaibench-{plugin(kind)}" for kind in KINDS), "countermeasures", "minivoc"))
    environment = {
        **os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(home / "cache"), "OMP_NUM_THREADS": "1",
        "XAIBENCH_PLUGINS": here,
    }  # fmt: skip
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd or home, capture_output=True, text=True, check=False, env=environment)


COMMANDS = """
import sys
from xaibench import cli
for words in {lines!r}:
    sys.argv = ["xaibench", *words]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""


def xaibench(home: Path, *lines: str) -> str:
    """What these commands print, one after another in one process: torch's import takes longer than most of them."""
    done = run(home, "-c", COMMANDS.format(lines=[line.split() for line in lines]))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean(folder: Path, *words: str) -> bool:
    """Whether ruff has nothing to say of a folder."""
    command = [sys.executable, "-m", "ruff", *(words or ("check",)), "--no-cache", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return True


# ---- as a stranger uses it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_its_code_is_clean(home, kind):
    folder = home / "src" / f"xaibench-{plugin(kind)}"
    assert clean(folder, "check") and clean(folder, "format", "--check")


def test_their_own_tests_pass(home):
    done = run(home, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *sorted((home / "src").iterdir()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_list_shows_every_one_and_nothing_is_wrong_with_it(home):
    shown = xaibench(home, "list")
    for kind in KINDS:
        (line,) = [line for line in shown.splitlines() if line.split()[:1] == [plugin(kind)]]
        assert line.split()[1:] == [f"xaibench-{plugin(kind)}", "0.1.0"]  # and no note


def test_check_finds_nothing_to_complain_of(home):
    shown = xaibench(home, *(f"check {plugin(kind)}" for kind in KINDS))
    assert all(f"{kind} {plugin(kind)}" in shown for kind in KINDS) and shown.count(", 0 failed") == len(KINDS)


def test_the_five_work_together(home):
    """The countermeasure learns from the data set, the method explains it, the metric scores that; the vocoder vocodes."""
    import pandas as pd

    cm, data, method, metric = (plugin(kind) for kind in ("countermeasure", "dataset", "attributor", "metric"))
    real = home / "site" / f"xaibench_{data.replace('-', '_')}" / "audio" / "eval" / "bonafide"
    shown = xaibench(
        home,
        f"train --cm {cm} --data {data} --epochs 40 --batch-pairs 2 --crop-seconds 0.5 --device cpu --out train",
        f"run --cm {cm} --checkpoint train/{cm}.safetensors --data {data} --xai {method} --limit 1 --device cpu --out run "
        f"--metrics rank-accuracy,{metric}",
        f"data make-pairs --vocoders {plugin('vocoder')} {real} pairs",
    )
    assert method in shown
    values = pd.read_parquet(home / "run" / "rows").query("metric == @metric").set_index("attributor")
    assert values.status[method] == "ok" and values.value["oracle"] > 4 > abs(values.value[method])
    assert values.value["constant"] == 0
    assert sorted(p.name for p in (home / "pairs" / plugin("vocoder")).iterdir()) == ["eve-1.flac", "eve-2.flac"]


# ---- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["x", "grad-cam++", "iou@5", "class", "9", LONGEST])
def test_any_name_gives_a_package_that_parses(kind, name, tmp_path):
    names = names_of(kind, name)
    write(render(names, author="A\\B \"C\" 'D' {{ E }} # ]\n\x7f"), tmp_path / "p")
    facts = tomllib.loads((tmp_path / "p" / "pyproject.toml").read_text(encoding="utf-8"))
    assert facts["project"]["name"] == names.distribution
    assert facts["project"]["authors"] == [{"name": "A\\B \"C\" 'D' {{ E }} # ]"}]
    (entry,) = facts["project"]["entry-points"][f"xaibench.{kind}s"].items()
    assert entry[0] == name
    module, _, thing = entry[1].partition(":")
    source = (tmp_path / "p" / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
    compile(source, module, "exec")
    assert f'name="{name}"' in source and (f"\n{thing} = " in source or f"\ndef {thing}(" in source)
    assert facts["project"]["entry-points"]["xaibench.api"] == {str(API_VERSION): "xaibench.protocols"}
    assert name != LONGEST or clean(tmp_path / "p")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_templates_is_left_and_the_placeholder_is_explained(kind):
    for author, told in ((NOBODY, True), ("Ada", False)):
        files = render(names_of(kind, "my-plugin"), author=author, year=2031)
        text = {path: content.decode() for path, content in files.items() if not path.endswith(".flac")}
        assert f"Copyright (c) 2031 {author}\n" in text["LICENSE"]
        assert ("First your name" in text["README.md"]) == told
        for path, content in text.items():
            assert "{%" not in content and "jinja" not in content, path
            assert content.endswith("\n") and not content.endswith("\n\n"), path
            assert "{{" not in content.replace("${{ matrix.python }}", ""), path


def test_every_template_ships_in_the_wheel():
    """hatchling takes what lies in a package, and git does not ignore: no name may be on the list of ignored ones."""
    shipped = {p.relative_to(TEMPLATES).as_posix() for p in TEMPLATES.rglob("*.jinja")}
    done = subprocess.run(["git", "check-ignore", *shipped], cwd=TEMPLATES, capture_output=True, text=True, check=False)
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    assert len(shipped) > 20 and not done.stdout


def test_the_example_is_the_same_every_time_and_small():
    one = recordings()
    assert one == recordings() and len(one) == 12 and sum(map(len, one.values())) < 400_000


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [("../x", "'x'"), ("a b", "'a-b'"), ("<img>", "'img'"), ("Grad-CAM", "'grad-cam'"), ("my_method", "'my-method'"),
     ("été", "'ete'"), ("方法", ""), ("-x", "'x'"), ("", ""), ("a" * 300, ""), ("a.b", "'a-b'"), ("x\n", "'x'"),
     ("a/b", "'a-b'"), ("a,b=c", "'a-b-c'"), ("x\0", "'x'"), ("$(id)", "'id'"), ("<all>", "")],
)  # fmt: skip
def test_a_hostile_name_is_one_sentence_with_a_way_out(name, hint, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("plugin", "new", "--out", "p", "--", "attributor", name)
    assert code == 2 and not out and "is no name of a plugin" in err and len(err.splitlines()) == 1 and len(err) < 300
    assert (f"perhaps {hint}?" in err) == bool(hint)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("attributor", "saliency", "the attributor 'saliency' is there already, from xaibench-captum"),
        ("metric", "roc-auc", "the metric 'roc-auc' is there already, from xaibench"),
        ("dataset", "captum", "the package xaibench-captum 0.1.0 is installed already"),
        ("attributor", "all", "means something else on the command line"),
        ("attributor", "xaibench-mine", "call the plugin 'mine'"),
        ("attributors", "mine", "unknown kind 'attributors'; there are: countermeasure"),
    ],
)
def test_a_name_that_is_taken_says_by_whom(kind, name, message, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command("plugin", "new", kind, name)
    assert code == 2 and message in err and not list(tmp_path.iterdir())


def test_a_module_of_that_name_is_not_shadowed(tmp_path, monkeypatch):
    (tmp_path / "xaibench_mine_too.py").write_text('"""Somebody\'s."""')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"a module xaibench_mine_too already, .*xaibench_mine_too\.py"):
        refuse_taken(names_of("vocoder", "mine-too"))


def test_the_longest_name_is_the_longest():
    assert NAME.fullmatch(LONGEST) and not NAME.fullmatch(f"{LONGEST}x")


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_the_command_says_what_to_do_next(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("plugin", "new", "metric", "brand-new", "--author", "Ada")
    assert code == 0, err
    assert [line.strip() for line in out.splitlines() if line.startswith("  ")] == [
        "cd xaibench-brand-new", "pip install -e '.[test]'", "pytest", "xaibench check brand-new",
    ]  # fmt: skip
    assert "8 files by Ada" in out and "xaibench_brand_new/metric.py" in out
    written = {p.relative_to(tmp_path / "xaibench-brand-new").as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert written == set(render(names_of("metric", "brand-new")))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    code, _, err = command("plugin", "new", "metric", "brand-new")
    assert code == 2 and "is not empty, and nothing is overwritten" in err
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_the_page_shows_what_the_command_prints_and_writes(command, tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "plugin.md").read_text(encoding="utf-8")
    printed, tree = re.findall(r"```text\n(.*?)```", page, flags=re.S)
    monkeypatch.chdir(tmp_path)
    assert command("plugin", "new", "attributor", "my-method", "--author", "Ada Lovelace") == (0, printed, "")
    folders: list[str] = []
    listed = set()
    for line in tree.splitlines()[1:]:
        bars, _, rest = line.partition("── ")
        entry = rest.split("  ")[0]
        folders[len(bars) // 4 :] = [entry]
        listed |= set() if entry.endswith("/") else {"".join(folders)}
    assert listed == {p.relative_to(tmp_path / "xaibench-my-method").as_posix() for p in tmp_path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["attributor", "dataset"])
def test_writing_a_package_imports_no_torch(kind, tmp_path):
    words = ["xaibench", "plugin", "new", kind, "brand-new"]
    code = f"import sys\nsys.argv = {words}\nfrom xaibench import cli\ncli.main()\nsys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "xaibench-brand-new" / "pyproject.toml").is_file()


@pytest.mark.parametrize(("out", "reason"), [("file", "is a file"), ("file/below", "cannot be written")])
def test_a_folder_that_cannot_be_one(out, reason, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    code, _, err = command("plugin", "new", "metric", "brand-new", "--out", out)
    assert code == 2 and reason in err and "--out" in err and (tmp_path / "file").read_text() == "mine"


def test_an_empty_folder_is_filled_and_the_place_where_one_stands_too(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command("plugin", "new", "metric", "brand-new", "--out", ".")
    assert code == 0, err
    assert {"pyproject.toml", "tests", ".github"} <= {p.name for p in tmp_path.iterdir()}


@pytest.mark.parametrize("existing", [False, True], ids=["new", "empty"])
@pytest.mark.parametrize("breaks", ["write_bytes", "rename"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "ctrl-c"])
def test_what_fails_half_way_leaves_nothing(breaks, error, existing, tmp_path, monkeypatch):
    folder = tmp_path / "deep" / "package"
    if existing:
        folder.mkdir(parents=True)
    home, name = (Path, "write_bytes") if breaks == "write_bytes" else (package.os, "rename")
    real, calls = getattr(home, name), []

    def fails(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise error
        return real(*arguments)

    monkeypatch.setattr(home, name, fails)
    expected = (PluginError, "No space left") if isinstance(error, OSError) else (KeyboardInterrupt, None)
    with pytest.raises(expected[0], match=expected[1]):
        write(render(names_of("dataset", "brand-new")), folder)
    assert len(calls) == 4
    assert list(tmp_path.rglob("*")) == ([folder.parent, folder] if existing else [])


# ---- the author ------------------------------------------------------------------------------------------------------


def test_the_author_is_gits_and_a_placeholder_without_one(tmp_path, monkeypatch):
    if shutil.which("git") is None:
        pytest.skip("no git")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "0")
    assert git_author() == ""
    (tmp_path / "gitconfig").write_text('[user]\n\tname = "Ada \\n Lovelace"\n', encoding="utf-8")
    assert git_author() == "Ada  Lovelace"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_author() == ""
