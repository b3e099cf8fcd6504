"""How a package offers a countermeasure: options, weights by seed, what ships and how to get what does not."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from xaibench.errors import PluginError
from xaibench.protocols import CountermeasureRecipe
from xaibench.recipe import Recipe


def network(*, width: int = 3, kind: str = "plain") -> nn.Module:
    """One random layer."""
    return nn.Linear(2, width)


class Network(nn.Linear):
    """The same as a class, whose options are those of its constructor."""

    def __init__(self, *, width: int = 3) -> None:
        super().__init__(2, width)


recipe = Recipe(name="toy", paper="none", build=network)


def test_the_options_are_the_keywords_of_the_builder_with_their_defaults():
    assert recipe.options == {"width": 3, "kind": "plain"}
    assert Recipe(name="toy", paper="none", build=Network).options == {"width": 3}
    assert recipe.untrained(seed=0, width=5).weight.shape == (5, 2)
    assert isinstance(Recipe(name="toy", paper="none", build=Network).untrained(seed=0), Network)


def test_an_unknown_option_is_named_with_those_that_there_are():
    with pytest.raises(PluginError, match=r"countermeasure 'toy' has no option depth, wdith; its options: width, kind"):
        recipe.untrained(seed=0, wdith=4, depth=2, kind="odd")
    bare = Recipe(name="bare", paper="none", build=lambda: nn.Linear(1, 1))
    with pytest.raises(PluginError, match="its options: none"):
        bare.untrained(seed=0, width=4)


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before():
    one = recipe.untrained(seed=3).weight
    torch.rand(7)
    assert torch.equal(one, recipe.untrained(seed=3).weight)
    assert not torch.equal(one, recipe.untrained(seed=4).weight)


def test_building_leaves_every_global_generator_as_it_was():
    torch.manual_seed(11)
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    recipe.untrained(seed=3)
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1]) and states[2] == random.getstate()

    def stops() -> nn.Module:
        torch.rand(3)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Recipe(name="stops", paper="none", build=stops).untrained(seed=0)
    assert torch.equal(states[0], torch.random.get_rng_state()), "also where the builder fails"


def test_what_ships_is_the_file_of_its_name_and_nothing_else(tmp_path):
    assert recipe.shipped() is None, "no folder"
    with_folder = Recipe(name="toy", paper="none", build=network, folder=tmp_path)
    (tmp_path / "other.safetensors").touch()
    (tmp_path / "toy.safetensors").mkdir()
    assert with_folder.shipped() is None
    (tmp_path / "toy.safetensors").rmdir()
    (tmp_path / "toy.safetensors").touch()
    assert with_folder.shipped() == tmp_path / "toy.safetensors"


def test_a_recipe_has_what_the_contract_asks_for():
    whole = Recipe(
        name="toy", paper="none", build=network, training={"epochs": 3}, initial=("kind",), obtain="ask its authors"
    )
    asked = [name for name in vars(CountermeasureRecipe) if not name.startswith("_")]
    assert {"name", "options", "untrained"} <= set(asked)
    for attribute in asked:
        assert hasattr(whole, attribute), attribute
    assert (whole.training, whole.initial, whole.obtain) == ({"epochs": 3}, ("kind",), "ask its authors")
    assert (recipe.training, recipe.initial, recipe.obtain) == ({}, (), "")


def test_every_recipe_that_is_installed_keeps_the_contract():
    from xaibench import registry
    from xaibench.training import TrainSpec

    offered = registry.plugins("countermeasures")
    assert "lcnn" in offered
    for name in offered:
        found = registry.load("countermeasures", name)
        assert found.name == name and found.paper
        TrainSpec.suited(found)  # its settings are settings
        if isinstance(found, Recipe):
            assert set(found.initial) <= set(found.options), name
            for option, default in found.options.items():  # recorded in the card, so JSON
                assert default is None or isinstance(default, str | int | float | bool | tuple | list), (name, option)
