from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from capprune.config.reading import CONFIG_BYTES, load_config, parse_config, require_single
from capprune.config.run import RunConfig
from capprune.models.soft_attention import SoftAttentionDropout
from capprune_runtime.errors import ConfigError, UsageError

CONFIGS = Path(__file__).parent.parent / "configs"
LEAST: Mapping[str, Any] = {"data": {"folder": "photos"}}


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_data_folder_is_the_only_key_that_must_be_given() -> None:
    config = parse_config(LEAST)
    assert config.data.folder == Path("photos")
    assert config.pruning.method == "none"
    assert config.decoder.shape()["cell"] == "lstm"


@pytest.mark.parametrize("tree", [{}, {"data": {}}])
def test_missing_data_folder_is_named_with_a_way_to_give_it(tree: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"(?s)the key data(\.folder)? is missing.*try .*data") as raised:
        parse_config(tree)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("override", "unknown", "near"),
    [
        ("training.epoch=3", "training.epoch", "did you mean epochs"),
        ("pruning.kapa=1", "pruning.kapa", "did you mean kappa"),
        ("trainin.epochs=3", "trainin", "did you mean training"),
        ("decoder.dropout.rn=0.1", "decoder.dropout.rn", "did you mean rnn"),
        ("decoder.zzz=1", "decoder.zzz", "known keys: family, dropout, cell, embedding"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_name(override: str, unknown: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)unknown key {unknown}: .*{near}"):
        parse_config(LEAST, [override])


@pytest.mark.parametrize(
    "override",
    [
        "training.epochs=0",
        "training.epochs=1.5",
        "training.epochs=many",
        "training.learning_rate=0",
        "training.learning_rate=.inf",
        "training.learning_rate=.nan",
        "decoder.dropout.rnn=1",
        "training.seed=-1",
        "pruning.sparsity=1",
        "pruning.sparsity=0",
        "pruning.method=magic",
        "pruning.block=4x4",
        "pruning.blocks.rnn=16",
        "pruning.kappa=-3000",
        "pruning.initial_gate=0",
        "pruning.initial_gate=40",
        "decoder.cell=rnn",
        "decoder.hidden=0",
        "decoder.hidden=1000000",
        "encoder.size=16",
        "data.maximum_tokens=1",
        "data=3",
    ],
)
def test_impossible_value_is_refused_with_its_key_and_what_was_found(override: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(ConfigError, match=rf"invalid value for {key}: here") as raised:
        parse_config(LEAST, [override], where="here")
    assert raised.value.expected
    assert raised.value.found == repr(yaml.safe_load(value))


def test_overrides_win_and_leave_the_rest(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {folder: photos, limit: 9}\ntraining: {epochs: 2, learning_rate: 1e-2}\n")
    config = load_config(path, ["training.epochs=5", "pruning.sparsity=0.9", "data.limit=", "name=mine"])
    assert config.training.epochs == 5
    assert config.training.learning_rate == 0.01
    assert config.pruning.sparsity == 0.9
    assert config.data.limit is None
    assert config.name == "mine"
    assert config.data.folder == Path("photos")


def test_override_of_a_value_that_is_not_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"not YAML: training\.epochs=\[3"):
        parse_config(LEAST, ["training.epochs=[3"])


@pytest.mark.parametrize(
    "text", ["no", "007", "1e3", "1.0e+3", "2026-01-01", "true", "1:30", "a # b", "[a, b]", "a: b", "0x10", " x "]
)
def test_override_of_a_text_or_a_path_is_taken_as_written(text: str) -> None:
    config = parse_config(LEAST, [f"data.licence={text}", f"name={text}", f"data.folder={text}", f"start={text}"])
    assert (config.data.licence, config.name) == (text, text)
    assert (config.data.folder, config.start) == (Path(text), Path(text))


def test_text_in_quotes_loses_them_and_nothing_means_none() -> None:
    config = parse_config(LEAST, ["name='007'", 'data.licence="no"', "start="])
    assert (config.name, config.data.licence, config.start) == ("007", "no", None)
    assert parse_config({**LEAST, "start": "a"}, ["start=null"]).start is None


@pytest.mark.parametrize("text", ["no", "007", "1e3", "1.10", "2026-01-01", "true", "1:30", "0x10"])
def test_text_and_paths_in_a_file_are_taken_as_written(tmp_path: Path, text: str) -> None:
    config = load_config(written(tmp_path, f"name: {text}\nstart: {text}\ndata: {{folder: {text}, licence: {text}}}\n"))
    assert (config.name, config.data.licence) == (text, text)
    assert (config.data.folder, config.start) == (Path(text), Path(text))


def test_numbers_are_decimal_and_never_base_eight_or_sixty(tmp_path: Path) -> None:
    config = load_config(
        written(tmp_path, "data: {folder: x, limit: 1_000}\ntraining: {seed: 010, learning_rate: 1e-3}\n")
    )
    assert (config.training.seed, config.training.learning_rate, config.data.limit) == (10, 0.001, 1000)
    with pytest.raises(ConfigError, match=r"invalid value for training\.seed"):
        load_config(written(tmp_path, "data: {folder: x}\ntraining: {seed: 1:30}\n"))


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("data: {folder: x}\ndata: {folder: y}\n", "data", "1 and 2"),
        ("data:\n  folder: x\n  limit: 1\n  folder: y\n", r"data\.folder", "2 and 4"),
        ("data: {folder: x}\nstages:\n  - {name: a, start: b, name: c}\n", r"stages\.name", "3 and 3"),
    ],
)
def test_key_that_stands_twice_is_refused_with_its_lines(tmp_path: Path, text: str, key: str, lines: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)is repeated: .*config\.yaml, {key}\n.*lines {lines}"):
        load_config(written(tmp_path, text))


def test_override_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"(?s)given twice: training\.epochs.*3 and 4"):
        require_single(["training.epochs=3", "training.epochs=4"])
    require_single(["training.epochs=3", "training.epochs=3", "training.seed=3"])


def test_override_below_a_key_that_is_no_tree_is_refused() -> None:
    with pytest.raises(ConfigError, match="training is not a tree of keys"):
        parse_config({**LEAST, "training": 5}, ["training.epochs=3"])


def test_override_in_a_list_changes_all_its_elements_or_one() -> None:
    tree = {"data": {"folder": "photos", "sources": [{"folder": "a", "weight": 2}, {"folder": "b"}]}}
    sources = parse_config(tree, ["data.sources.*.folder=007", "data.sources.1.weight=3"]).data.sources
    assert [(str(one.folder), one.weight) for one in sources] == [("007", 2), ("007", 3)]
    assert tree["data"]["sources"] == [{"folder": "a", "weight": 2}, {"folder": "b"}]
    with pytest.raises(ConfigError, match=r"(?s)sources has no such element.*a number below 2.*2"):
        parse_config(tree, ["data.sources.2.weight=3"])
    with pytest.raises(ConfigError, match="weights"):
        parse_config(tree, ["data.sources.0.weights=3"])
    with pytest.raises(ConfigError, match="sources is not a list"):
        parse_config(LEAST, ["data.sources.*.weight=3"])


def test_a_path_may_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_config(LEAST, ["data.folder=~/x"]).data.folder == tmp_path / "x"
    assert load_config(written(tmp_path, "data: {folder: ~/x}\n")).data.folder == tmp_path / "x"


@pytest.mark.parametrize("override", ["training.epochs", "=3", ""])
def test_override_without_key_or_value_is_a_usage_error(override: str) -> None:
    with pytest.raises(UsageError, match=r"(?s)key=value.*training\.epochs=3"):
        parse_config(LEAST, [override])


def test_overrides_do_not_change_the_tree_they_are_given() -> None:
    tree: dict[str, Any] = {"data": {"folder": "photos"}}
    parse_config(tree, ["data.limit=3", "training.epochs=1"])
    assert tree == {"data": {"folder": "photos"}}


def test_blocks_are_set_for_all_layers_and_overridden_for_one() -> None:
    assert parse_config(LEAST).pruning.block == "none"
    config = parse_config({**LEAST, "pruning": {"block": "1x16", "blocks": {"output": "none"}}}).pruning
    assert (config.block, config.blocks) == ("1x16", {"output": "none"})
    saved = {"block": "1x16", "blocks": {"rnn": None, "candidate": None, "query": None, "output": "none"}}
    assert parse_config({**LEAST, "pruning": saved}).pruning == config  # as runs of version 0.1 have it


def test_dropout_of_version_0_1_is_read_as_the_decoders() -> None:
    old = parse_config({**LEAST, "training": {"dropout": {"rnn": 0.1, "attention": 0.2}}}, ["training.dropout.rnn=0.3"])
    assert old.decoder.dropout.model_dump() == {"rnn": 0.3, "attention": 0.2}
    assert "dropout" not in old.as_tree()["training"]
    with pytest.raises(ConfigError, match="dropout is given twice"):
        parse_config({**LEAST, "decoder": {"dropout": {"rnn": 0.1}}}, ["training.dropout.rnn=0.3"])


def test_a_family_is_chosen_by_name_and_an_unknown_one_is_refused_with_the_nearest() -> None:
    assert parse_config(LEAST).decoder.family == "soft_attention"
    with pytest.raises(ConfigError, match=r"(?s)no such decoder family.*did you mean soft_attention"):
        parse_config(LEAST, ["decoder.family=soft_atention"])
    with pytest.raises(ConfigError, match="no such decoder family"):
        parse_config(LEAST, ["decoder.family=3"])


def test_resolved_tree_reads_back_as_the_same_config(tmp_path: Path) -> None:
    config = parse_config(LEAST, ["training.learning_rate=1e-5", "pruning.method=supermask", "encoder.grid=4"])
    assert load_config(written(tmp_path, config.as_yaml())) == config
    assert parse_config(config.as_tree()) == config
    assert "dropout_factor" in config.as_tree()["pruning"]


def test_yaml_alias_is_refused_before_it_can_expand(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\ndata: {folder: *b}\n"
    with pytest.raises(ConfigError, match="must not use YAML aliases"):
        load_config(written(tmp_path, bomb))


@pytest.mark.parametrize("value", ["!!python/object/apply:os.system [echo]", "!!str photos", "!mine photos"])
def test_yaml_tag_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="must not use YAML tags"):
        load_config(written(tmp_path, f"data:\n  folder: {value}\n"))


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list\n", "data: [", "[" * 5000])
def test_text_that_is_no_tree_is_a_config_error_with_its_path(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load_config(written(tmp_path, text))


def test_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too large"):
        load_config(written(tmp_path, "#" * (CONFIG_BYTES + 1)))


def test_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)no such config: .*gone\.yaml.*capprune train"):
        load_config(tmp_path / "gone.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_file_that_cannot_be_read_is_a_config_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "config.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("flickr8k_*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipe_is_a_config(path: Path) -> None:
    assert isinstance(load_config(path), RunConfig)


def test_dropout_scales_every_rate() -> None:
    assert SoftAttentionDropout(rnn=0.5, attention=0.25).scaled(0.5) == SoftAttentionDropout(rnn=0.25, attention=0.125)


def test_a_config_that_never_ends_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    (tmp_path / "large.yaml").write_text("#" * (CONFIG_BYTES + 1))
    for name, found in (("pipe", "a named pipe"), ("device", "a device"), ("large", "too large")):
        with pytest.raises(ConfigError, match=found):
            load_config(tmp_path / f"{name}.yaml")
