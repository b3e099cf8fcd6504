"""Plugins as strangers publish them: a ten-line package, a broken one, a collision, a wrong object."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from xaibench import registry
from xaibench.errors import PluginError
from xaibench.installed import remember, swapped

TEN_LINES = '''
"""Magnitude of the gradient times the gradient's sign: a stranger's first method."""
import torch
from xaibench.protocols import attributor

@attributor(name="signed-root", paper="A. Stranger, 2026", needs=["gradients"])
def signed_root(view, *, power=0.5):
    x = view.inputs.clone().requires_grad_()
    (grad,) = torch.autograd.grad(view.model(x).sum(), x)
    return (grad.sign() * grad.abs() ** power).sum(1)
'''


def publish(folder: Path, distribution: str, module: str, source: str, entries: dict[str, dict[str, str]]) -> None:
    """What `pip install` leaves behind: a module and its metadata."""
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{distribution.replace('-', '_')}-1.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2.3\n")
    text = ""
    for group, names in entries.items():
        text += f"[xaibench.{group}]\n" + "".join(f"{n} = {v}\n" for n, v in names.items())
    (info / "entry_points.txt").write_text(text)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path where packages can be published; the registry looks again before and after."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    registry.look_again()
    yield tmp_path
    registry.look_again()
    for name in ("stranger", "broken", "quits", "double", "wrong"):
        sys.modules.pop(name, None)


def test_a_ten_line_package_is_one_of_all(site):
    from xaibench.harness.known import known_names

    publish(site, "a-stranger", "stranger", TEN_LINES, {"attributors": {"signed-root": "stranger:signed_root"}})
    found = registry.find("attributors", "signed-root")
    assert (found.distribution, found.version) == ("a-stranger", "1.2.3")
    assert registry.load("attributors", "signed-root").options == {"power": 0.5}
    names, broken = known_names("attributors", ["all"])
    assert "signed-root" in names and not broken


def test_a_ten_line_package_runs_on_a_view(site):
    import torch
    from toys import LinearCM, view_of

    publish(site, "a-stranger", "stranger", TEN_LINES, {"attributors": {"signed-root": "stranger:signed_root"}})
    method = registry.load("attributors", "signed-root").with_options(power=1.0)
    cm = LinearCM()
    torch.testing.assert_close(method(view_of(cm)).values, cm.weight.expand(3, -1, -1))


@pytest.mark.parametrize(
    ("source", "message"),
    [("raise RuntimeError('no licence key')", "RuntimeError: no licence key"),
     ("import nowhere_to_be_found", "ModuleNotFoundError"), ("raise SystemExit(3)", "SystemExit: 3"),
     ("x = = 1", "SyntaxError")],
)  # fmt: skip
def test_a_package_that_fails_to_import_is_one_named_problem(site, source, message):
    from xaibench.harness.known import known_names

    publish(site, "a-broken-package", "broken", source, {"attributors": {"broken-one": "broken:method"}})
    with pytest.raises(PluginError, match=r"a-broken-package 1\.2\.3 failed to import") as error:
        registry.load("attributors", "broken-one")
    assert message in str(error.value)
    names, broken = known_names("attributors", ["all"])
    assert "energy" in names and "broken-one" not in names and message in broken[0]


def test_problems_are_found_in_another_process_and_remembered_until_a_file_changes(site, monkeypatch):
    monkeypatch.setenv("XAIBENCH_PLUGINS", "a-broken-package")
    entries = {"attributors": {"broken-one": "broken:method"}}
    publish(site, "a-broken-package", "broken", "raise ValueError('first')", entries)
    assert "first" in registry.problems()["attributors/broken-one"]
    assert "broken" not in sys.modules
    registry.look_again()
    monkeypatch.setattr(registry, "ask", None)  # a second look must not start a process
    assert "first" in registry.problems()["attributors/broken-one"]
    (site / "broken.py").write_text("raise ValueError('the second')")
    with pytest.raises(TypeError):  # and now it must
        registry.problems()


def test_a_plugin_that_kills_the_process_is_reported(site, monkeypatch):
    monkeypatch.setenv("XAIBENCH_PLUGINS", "a-quitter,a-stranger")  # importing all the others takes long
    publish(site, "a-quitter", "quits", "import os; os._exit(7)", {"attributors": {"quits": "quits:method"}})
    publish(site, "a-stranger", "stranger", TEN_LINES, {"attributors": {"signed-root": "stranger:signed_root"}})
    assert registry.problems() == {
        "attributors/quits": "attributor 'quits' of a-quitter 1.2.3 failed to import: its process ended with exit code 7"
    }


def test_two_packages_with_one_name_are_both_named(site):
    publish(site, "a-stranger", "stranger", TEN_LINES, {"attributors": {"signed-root": "stranger:signed_root"}})
    publish(site, "another-one", "double", TEN_LINES, {"attributors": {"signed-root": "double:signed_root"}})
    with pytest.raises(PluginError, match=r"a-stranger 1\.2\.3 and another-one 1\.2\.3"):
        registry.find("attributors", "signed-root")


def test_an_entry_point_to_the_wrong_thing_says_what_was_expected(site):
    publish(site, "wrong-one", "wrong", "method = 3", {"attributors": {"wrong": "wrong:method"}})
    with pytest.raises(PluginError, match="is of type int, expected Attributor"):
        registry.load("attributors", "wrong")


def test_entry_point_and_plugin_must_agree_on_the_name(site):
    publish(site, "a-stranger", "stranger", TEN_LINES, {"attributors": {"other-name": "stranger:signed_root"}})
    with pytest.raises(PluginError, match="calls itself 'signed-root'"):
        registry.load("attributors", "other-name")


def test_every_first_party_plugin_loads():
    for group in registry.GROUPS:
        for name in registry.plugins(group):
            registry.load(group, name)


def twins(site):
    publish(site, "a-stranger", "stranger", TEN_LINES, {"attributors": {"signed-root": "stranger:signed_root"}})
    publish(site, "another-one", "double", TEN_LINES, {"attributors": {"signed-root": "double:signed_root"}})


def test_only_the_packages_that_are_named_are_looked_at(site, monkeypatch):
    twins(site)
    monkeypatch.setenv("XAIBENCH_PLUGINS", "Another_One, planted")
    assert registry.find("attributors", "signed-root").distribution == "another-one"
    found = {p.distribution for group in registry.GROUPS for claims in registry.plugins(group).values() for p in claims}
    assert found == {"xaibench", "another-one", "xaibench-planted"}
    with pytest.raises(PluginError, match="XAIBENCH_PLUGINS leaves out xaibench-shap, whose attributor 'deep-explainer' is"):
        registry.find("attributors", "deep-explainer")


def test_a_package_to_look_at_that_is_not_there_is_an_error(site, monkeypatch):
    monkeypatch.setenv("XAIBENCH_PLUGINS", "shapp")
    with pytest.raises(PluginError, match=r"names 'shapp', which is no installed package with plugins; there are: .*shap"):
        registry.plugins("attributors")


def test_an_empty_list_of_packages_leaves_xaibench_alone(site, monkeypatch):
    monkeypatch.setenv("XAIBENCH_PLUGINS", "")
    assert {c.distribution for claims in registry.plugins("attributors").values() for c in claims} == {"xaibench"}


@pytest.mark.parametrize("distribution", ["a-stranger", "zz-stranger"])  # before and behind xaibench in the alphabet
def test_nobody_can_take_a_name_of_xaibench(site, distribution):
    from xaibench.harness.known import control_names

    source = TEN_LINES.replace("signed-root", "random")
    publish(site, distribution, "stranger", source, {"attributors": {"random": "stranger:signed_root"}})
    assert registry.load("attributors", "random").control and "random" in control_names()
    assert registry.problems()["attributors/random"] == (
        f"attributor 'random' of {distribution} 1.2.3 is never used: the name belongs to xaibench 0.1.0"
    )


def test_a_metric_of_the_catalogue_cannot_be_taken_either(site):
    from xaibench.harness.known import known_metrics

    publish(site, "a-stranger", "stranger", "score = 1", {"metrics": {"rank-accuracy": "stranger:score"}})
    assert known_metrics(["rank-accuracy"], "quick") == ("rank-accuracy",)
    with pytest.raises(PluginError, match=r"of a-stranger 1\.2\.3 is never used: the name belongs to xaibench"):
        registry.load("metrics", "rank-accuracy")


@pytest.mark.parametrize("name", ["all", "Grad-CAM", "a b", "a.b", "<b>", "-a", "x" * 65])
def test_a_name_that_the_command_line_could_not_say_is_a_problem(site, name):
    publish(site, "a-stranger", "stranger", TEN_LINES, {"attributors": {name: "stranger:signed_root"}})
    with pytest.raises(PluginError, match="cannot be called that: a name is lower-case letters and digits"):
        registry.load("attributors", name)


def test_the_names_of_the_first_party_follow_the_grammar():
    from xaibench.metrics.catalog import METRICS
    from xaibench.protocols import NAME, RESERVED

    names = {*METRICS, *(name for group in registry.GROUPS for name in registry.plugins(group))}
    assert [n for n in names if not NAME.fullmatch(n) or n in RESERVED] == []


@pytest.mark.parametrize(
    ("declared", "message"),
    [(("2",), "is written for version 2 of the plugin contract, this xaibench serves 1: upgrade xaibench"),
     (("0",), r"serves 1: a-stranger must be updated \(docs/contract.md\)"),
     (("x",), "must be updated"), (("2", "3"), "version 2 and 3"),
     ((), ""), (("1",), ""), (("1", "2"), "")],
)  # fmt: skip
def test_the_version_of_the_contract_is_read_without_importing_the_plugin(site, declared, message):
    entries = {"attributors": {"signed-root": "stranger:signed_root"}, "api": dict.fromkeys(declared, "xaibench.protocols")}
    publish(site, "a-stranger", "stranger", TEN_LINES, entries)
    if not message:
        assert registry.load("attributors", "signed-root").name == "signed-root"
        return
    with pytest.raises(PluginError, match=message):
        registry.load("attributors", "signed-root")
    assert "stranger" not in sys.modules


def test_a_version_that_will_go_is_said(site, monkeypatch):
    twins(site)
    monkeypatch.setitem(registry.SERVED, 1, "2030-01-01")
    plugin = registry.plugins("attributors")["signed-root"][0]
    assert registry.ageing(plugin) == "follows version 1 of the plugin contract, which is served until 2030-01-01"
    monkeypatch.setitem(registry.SERVED, 1, "")
    assert registry.ageing(plugin) == ""


def test_the_first_party_declares_its_version():
    ours = {
        p for g in registry.GROUPS for c in registry.plugins(g).values() for p in c if p.distribution.startswith("xaibench")
    }
    assert {p.api for p in ours} == {("1",)}


@pytest.mark.parametrize(
    ("metadata", "said"),
    [(b"Metadata-Version: 2.1\nName: a-stranger\nVersion: 1.2.3\nAuthor: Caf\xe9\n", "1.2.3"), (b"", "1.2.3"),
     (b"Name: a-stranger\n", "1.2.3"), (b"Name: a-stranger\nVersion: \x1b[31m1\n", " [31m1")],
)  # fmt: skip
def test_damaged_metadata_costs_a_package_neither_its_plugins_nor_anybody_else_theirs(site, metadata, said):
    entries = {"attributors": {"signed-root": "stranger:signed_root"}}
    publish(site, "a-stranger", "stranger", TEN_LINES, entries)
    (site / "a_stranger-1.2.3.dist-info" / "METADATA").write_bytes(metadata)
    plugin = registry.find("attributors", "signed-root")
    assert plugin.distribution in ("a-stranger", "a_stranger") and plugin.version == said
    assert registry.load("attributors", "signed-root").name == "signed-root"
    remember()
    assert swapped() == [] and "oracle" in registry.plugins("attributors")


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"[xaibench.attributors]\nno equals sign\n"])
def test_damaged_entry_points_are_a_named_problem(site, damage, monkeypatch):
    monkeypatch.setenv("XAIBENCH_PLUGINS", "")
    publish(site, "a-stranger", "stranger", TEN_LINES, {})
    (site / "a_stranger-1.2.3.dist-info" / "entry_points.txt").write_bytes(damage)
    assert "oracle" in registry.plugins("attributors")
    assert registry.problems()["packages/a-stranger"].startswith("entry_points.txt of a-stranger 1.2.3 cannot be read (")


@pytest.mark.parametrize("place", ["", "stranger", "a stranger:signed_root", "..:x"])
def test_an_entry_point_to_nowhere_is_a_named_problem(site, place, monkeypatch):
    monkeypatch.setenv("XAIBENCH_PLUGINS", "a-stranger")
    publish(site, "a-stranger", "stranger", TEN_LINES, {"attributors": {"signed-root": place}})
    with pytest.raises(PluginError, match=r"'signed-root' of a-stranger 1\.2\.3 (points at|failed to import: |is of type)"):
        registry.load("attributors", "signed-root")
    assert list(registry.problems()) == ["attributors/signed-root"]


def test_what_one_import_breaks_is_not_held_against_the_next(site, monkeypatch):
    monkeypatch.setenv("XAIBENCH_PLUGINS", "a-stranger,b-stranger")
    breaks = "import xaibench.registry; xaibench.registry.unfit = None\n" + TEN_LINES
    entries = {"attributors": {"signed-root": "stranger:signed_root"}}
    publish(site, "a-stranger", "stranger", breaks, entries)
    publish(
        site, "b-stranger", "double", TEN_LINES.replace("signed-root", "z"), {"attributors": {"z": "double:signed_root"}}
    )
    assert registry.problems() == {}


def test_what_an_import_moves_is_undone(site, monkeypatch):
    import torch

    monkeypatch.chdir(site)
    sets = "import os, torch\nos.chdir('/'); torch.set_default_dtype(torch.float64)\n"
    sets += "torch.autocast('cpu', torch.bfloat16).__enter__()\n"
    publish(site, "a-stranger", "stranger", sets + TEN_LINES, {"attributors": {"signed-root": "stranger:signed_root"}})
    assert registry.load("attributors", "signed-root").name == "signed-root"
    assert torch.get_default_dtype() is torch.float32 and not torch.is_autocast_enabled("cpu") and Path.cwd() == site


@pytest.mark.parametrize("fields", ["options={1: 2}", "needs='gradients'", "function=None"])
def test_an_attributor_that_is_put_together_wrongly_is_a_named_problem(site, fields):
    source = f"""
from xaibench.protocols import Attributor
odd = Attributor(**{{"name": "odd", "paper": "none", "function": print, **dict({fields})}})
"""
    publish(site, "a-stranger", "stranger", source, {"attributors": {"odd": "stranger:odd"}})
    with pytest.raises(PluginError, match=r"a-stranger 1\.2\.3 failed to import: PluginError: attributor 'odd'"):
        registry.load("attributors", "odd")
