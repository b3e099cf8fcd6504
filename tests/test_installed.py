"""What is said when a plugin's installation swapped the torch that everybody shares."""

from __future__ import annotations

import json

import pytest

from xaibench import installed, registry
from xaibench.cache import place


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path with a stranger's package, and a memory of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path
    registry.look_again()


def publish(site, name, *requires):
    info = site / f"{name}-1.2.3.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {r}\n" for r in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n{needs}")
    (info / "entry_points.txt").write_text(f"[xaibench.vocoders]\n{name} = {name}:coder\n")
    registry.look_again()


def test_all_is_well_where_nothing_changed(site):
    assert installed.swapped() == []
    installed.remember()
    assert installed.swapped() == []


def test_a_plugin_that_pins_another_torch_is_named(site):
    publish(site, "greedy", "torch==1.0", "torchvision<0.5; extra == 'old'", "numpy>=1")
    (note,) = installed.swapped()
    assert note.startswith("greedy 1.2.3 needs torch==1.0, but torch ") and note.endswith("is installed")


def test_a_swap_is_told_with_what_is_new_since(site, monkeypatch):
    installed.remember()
    publish(site, "greedy")
    real = installed.versions()
    monkeypatch.setattr(installed, "versions", lambda: {**real, "torch": "2.12.0"})
    (note,) = installed.swapped()
    assert note.startswith(f"torch was {real['torch']} when xaibench last computed something here, and is 2.12.0 now")
    assert "new since then: greedy 1.2.3" in note and f"pip install torch=={real['torch']}" in note
    assert installed.swapped() == [note]  # until a run takes it for granted
    installed.remember()
    assert installed.swapped() == []


def test_a_torch_that_does_not_fit_xaibench_itself_is_said(site, monkeypatch):
    real = installed.versions()
    monkeypatch.setattr(installed, "versions", lambda: {**real, "torch": "2.9.1"})
    assert any(note.startswith("xaibench 0.1.0 needs torch<2.15,>=2.11") for note in installed.swapped())


@pytest.mark.parametrize("text", ["", "{", "[1]", json.dumps({"versions": {"torch": "0"}})])
def test_a_damaged_memory_harms_nobody(site, text):
    installed.remember()
    place(installed._memory()).write_text(text)
    assert len(installed.swapped()) == (1 if "versions" in text else 0)


def test_a_home_that_cannot_be_written_to_is_no_error(site, monkeypatch):
    (site / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(site / "file"))
    installed.remember()
    assert installed.swapped() == []
