"""Maps come back as they were written, names cannot leave their folder, and damage is named."""

import subprocess
import sys

import numpy as np
import pytest

from xaibench import maps
from xaibench.errors import RunError, XaibenchError


def a_map(seed=0):
    return np.random.default_rng(seed).normal(size=(5, 7)).astype(np.float32)


def test_a_map_comes_back(tmp_path):
    path = maps.map_path(tmp_path, "lcnn", "native", "grad-cam++", "june_003/hifigan")
    assert path.relative_to(tmp_path).as_posix() == "maps/lcnn/native/grad-cam++/june_003__hifigan.safetensors"
    maps.write_map(path, a_map().T.T.astype(np.float64), metadata={"utterance": "june_003", "seed": 3})
    stored = maps.read_map(path)
    np.testing.assert_array_equal(stored.values, a_map())
    assert stored.values.dtype == np.float32
    assert stored.metadata == {"utterance": "june_003", "seed": "3"}
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no scratch file stays


def test_a_truth_comes_back(tmp_path):
    path = maps.truth_path(tmp_path, "eq2", 4, "u/world")
    values, region, valid = np.abs(a_map()), a_map() > 1, a_map() > -1
    maps.write_truth(path, values, region, valid, metadata={})
    stored = maps.read_truth(path)
    np.testing.assert_array_equal(stored.values, values)
    np.testing.assert_array_equal(stored.region, region)
    np.testing.assert_array_equal(stored.valid, valid)
    assert stored.region.dtype == bool
    np.testing.assert_array_equal(maps.read_map(path).values, values)


def test_a_map_is_no_truth(tmp_path):
    path = tmp_path / "m.safetensors"
    maps.write_map(path, a_map(), metadata={})
    with pytest.raises(RunError, match="not a truth, it has no region"):
        maps.read_truth(path)


def test_a_transposed_map_keeps_its_meaning(tmp_path):
    path = tmp_path / "m.safetensors"
    maps.write_map(path, a_map().T, metadata={})  # not contiguous in memory
    np.testing.assert_array_equal(maps.read_map(path).values, a_map().T)


@pytest.mark.parametrize(
    "pair", ["../x/world", "a/b/world", "a\\b/world", "/world", "u/", "u", "../world", "u/..", "u/a__b", ""]
)
def test_ids_that_are_paths_or_no_ids_are_refused(tmp_path, pair):
    with pytest.raises(XaibenchError):
        maps.map_path(tmp_path, "lcnn", "native", "saliency", pair)
    with pytest.raises(XaibenchError):
        maps.truth_path(tmp_path, "eq2", 4, pair)


@pytest.mark.parametrize("name", ["..", "a/b", "a\\b", "", "a\0b"])
def test_names_that_are_paths_are_refused(tmp_path, name):
    for names in ((name, "native", "m"), ("lcnn", name, "m"), ("lcnn", "native", name)):
        with pytest.raises(XaibenchError, match="cannot name a file"):
            maps.map_path(tmp_path, *names, "u/world")


def test_a_countermeasure_cannot_stand_where_the_truths_are(tmp_path):
    with pytest.raises(XaibenchError, match="truth"):
        maps.map_path(tmp_path, "truth", "native", "saliency", "u/world")


def test_different_names_are_different_files(tmp_path):
    names = ["a:b", "a_b", "a%3Ab", ".a", "%2Ea", "a b", "A"]
    assert len({maps.map_path(tmp_path, "lcnn", "native", n, "u/world") for n in names}) == len(names)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(3), "got shape"),
        (np.zeros((2, 0)), "got shape"),
        (np.zeros((1, 2, 2)), "got shape"),
        (np.full((2, 2), np.nan), "4 cells"),
    ],
)
def test_what_is_not_a_map_is_not_written(tmp_path, values, message):
    with pytest.raises(XaibenchError, match=message):
        maps.write_map(tmp_path / "m.safetensors", values, metadata={})
    with pytest.raises(XaibenchError, match="the map"):
        maps.write_truth(tmp_path / "m.safetensors", a_map(), np.ones((2, 2)), np.ones((5, 7)), metadata={})
    assert not list(tmp_path.iterdir())


def test_curves_come_back_and_stay_with_the_same_map(tmp_path):
    path = tmp_path / "m.safetensors"
    first = {"fractions": np.array([0.0, 0.5, 1.0]), "deletion-twin": np.array([3.0, 1.0, -2.5])}
    maps.write_map(path, a_map(), metadata={}, curves=first)
    for found in (maps.read_map(path).curves, maps.read_curves(path)):
        assert {n: c.tolist() for n, c in found.items()} == {n: c.tolist() for n, c in first.items()}
    more = {"fractions": first["fractions"], "insertion-twin": np.array([-2.5, 0.0, 3.0])}
    maps.write_map(path, a_map(), metadata={}, curves=more)
    assert set(maps.read_map(path).curves) == {"fractions", "deletion-twin", "insertion-twin"}
    maps.write_map(path, a_map(), metadata={})
    assert len(maps.read_map(path).curves) == 3
    other = {"fractions": np.array([0.0, 1.0]), "insertion-twin": np.array([0.0, 3.0])}
    maps.write_map(path, a_map(), metadata={}, curves=other)  # other fractions: the old curves are of another run
    assert set(maps.read_map(path).curves) == {"fractions", "insertion-twin"}
    maps.write_map(path, a_map(1), metadata={})  # another map
    assert maps.read_map(path).curves == {}
    with pytest.raises(XaibenchError, match="not as long as its fractions"):
        maps.write_map(path, a_map(), metadata={}, curves={"fractions": np.zeros(2), "deletion-twin": np.zeros(3)})


def test_missing_damaged_and_foreign_files_are_named(tmp_path):
    with pytest.raises(RunError, match=r"gone\.safetensors.*--keep-maps"):
        maps.read_map(tmp_path / "gone.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    maps.write_map(damaged, a_map(), metadata={})
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(RunError, match=r"damaged\.safetensors: damaged"):
        maps.read_map(damaged)
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros((2, 2))}, tmp_path / "other.safetensors")
    with pytest.raises(RunError, match="holds weight"):
        maps.read_map(tmp_path / "other.safetensors")


def test_a_failed_write_leaves_the_old_map(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    maps.write_map(path, a_map(), metadata={})

    def full(*_args, **_options):
        raise OSError("No space left on device")

    monkeypatch.setattr(maps, "save", full)
    with pytest.raises(RunError, match="No space left"):
        maps.write_map(path, a_map(1), metadata={})
    np.testing.assert_array_equal(maps.read_map(path).values, a_map())


def test_kept_maps_are_found_by_pair_and_by_utterance(tmp_path):
    for cm, route, method, pair in (
        ("lcnn", "native", "saliency", "u/world"), ("lcnn", "native", "ig:steps=5", "u/world"),
        ("lcnn", "grid", "saliency", "u/world"), ("lcnn", "native", "saliency", "u/hifigan"),
        ("lcnn", "native", "saliency", "u[1]/hifigan"), ("lcnn", "native", "saliency", "u__2/hifigan"),
    ):  # fmt: skip
        maps.write_map(maps.map_path(tmp_path, cm, route, method, pair), a_map(), metadata={})
    maps.write_truth(maps.truth_path(tmp_path, "eq2", 4, "u/world"), a_map(), a_map() > 0, a_map() > 0, metadata={})
    assert maps.kept_pairs(tmp_path, "u") == ["u/hifigan", "u/world"]
    assert maps.kept_pairs(tmp_path, "u/world") == ["u/world"]
    assert maps.kept_pairs(tmp_path, "u__2") == ["u__2/hifigan"]
    found = maps.kept_maps(tmp_path, "u/world")
    assert {key: list(files) for key, files in found.items()} == {
        ("lcnn", "grid"): ["saliency"], ("lcnn", "native"): ["ig:steps=5", "saliency"]
    }  # fmt: skip
    assert list(maps.kept_maps(tmp_path, "u[1]/hifigan")) == [("lcnn", "native")]
    with pytest.raises(RunError, match="no map of 'v' was kept; there are u"):
        maps.kept_pairs(tmp_path, "v")


def test_a_run_without_maps_says_how_to_get_them(tmp_path):
    with pytest.raises(RunError, match="--keep-maps"):
        maps.kept_pairs(tmp_path, "u")


def test_no_torch():
    code = "import sys, xaibench.maps, xaibench.stats; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
