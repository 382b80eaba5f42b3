"""Dotted keys of nested containers."""

from __future__ import annotations

from omegaconf import OmegaConf

from src.utils.nested import dotted, flat


def test_an_empty_mapping_and_a_list_are_leaves() -> None:
    assert flat({"a": {"b": [1, {"c": 2}], "d": {}}, "e": None}) == {"a.b": [1, {"c": 2}], "a.d": {}, "e": None}


def test_a_container_comes_before_what_it_contains() -> None:
    keys = [key for key, _ in dotted({"a": {"b": [{"c": 1}, "text"], 2: ()}}, "top", lists=True)]
    assert keys == ["top.a", "top.a.b", "top.a.b[0]", "top.a.b[0].c", "top.a.b[1]", "top.a.2"]
    assert list(dotted("text", lists=True)) == []


def test_a_configuration_is_walked_with_its_interpolations_resolved() -> None:
    config = OmegaConf.create({"a": [{"b": "${width}"}], "width": 3, "nothing": None})
    assert dict(dotted(config, lists=True))["a[0].b"] == 3
