from __future__ import annotations

import pytest
import torch
from attentive_decoders import MAX_TOKENS, REGIONS, batch, small
from pydantic import ValidationError
from torch import nn

from capprune.models.family import Role
from capprune.models.relation_transformer import RelationTransformer, RelationTransformerConfig, grid_relations
from capprune_runtime.errors import ConfigError

FAMILY = "relation_transformer"

# The published model: 10,001 words, an embedding and an output layer that share nothing, regions of 2,048 features, 6 + 6
# layers of width 512. Its pruned matrices are the projection of the regions, 2,048 x 512, a layer of the encoder part (four
# of 512 x 512, eight relations of 64 x 1, two of 512 x 2,048), a layer of the decoder part (eight of 512 x 512, two of
# 512 x 2,048), the embedding and the output, 10,001 x 512 each.
PUBLISHED = RelationTransformerConfig(width=512, feed_forward=2048, heads=8, encoder_layers=6, decoder_layers=6)
PUBLISHED_MASKED, PUBLISHED_ALL = 55_332_864, 55_443_777


def test_parameters_are_those_of_the_published_model_to_the_last_digit() -> None:
    with torch.device("meta"):
        decoder = RelationTransformer(PUBLISHED, features=2048, vocabulary=10_001, regions=36)
    masked = {name: decoder.get_submodule(name).get_parameter("weight").numel() for name in decoder.roles()}
    photo_layer = 4 * 512 * 512 + 8 * 64 + 2 * 512 * 2048
    word_layer = 8 * 512 * 512 + 2 * 512 * 2048
    assert sum(size for name, size in masked.items() if name.startswith("photo_layers.0.")) == photo_layer
    assert sum(size for name, size in masked.items() if name.startswith("word_layers.0.")) == word_layer
    assert sum(masked.values()) == 2048 * 512 + 6 * (photo_layer + word_layer) + 2 * 10_001 * 512 == PUBLISHED_MASKED
    assert sum(parameter.numel() for parameter in decoder.parameters()) == PUBLISHED_ALL


def test_regions_that_are_no_grid_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"(?s)cells of a grid.*square.*found +10") as raised:
        RelationTransformer(RelationTransformerConfig(), features=4, vocabulary=9, regions=10)
    assert raised.value.exit_code == 2


def test_width_must_divide_into_heads() -> None:
    with pytest.raises(ValidationError, match="width 20 is not a multiple of heads 8"):
        RelationTransformerConfig(width=20, heads=8)


def test_relations_tell_distance_but_not_direction() -> None:
    relations = grid_relations(3)
    assert relations.shape == (9, 9, 64)
    torch.testing.assert_close(relations, relations.transpose(0, 1))
    torch.testing.assert_close(relations[0, 1], relations[4, 5])  # one to the right
    different = (relations[0].unsqueeze(0) - relations[0].unsqueeze(1)).abs().amax(-1) + torch.eye(9)
    assert float(different.min()) > 0.1  # nine places, nine vectors


def test_relations_are_those_of_the_reference_implementation() -> None:
    right, down = 2.0, 1.0  # cells from (0, 0) to (1, 2) of a grid of 3 x 3
    logs = 100 * torch.tensor([right, down, 1.0, 1.0]).log()
    waves = 1 / 1000 ** (torch.arange(8) / 8)
    angles = (logs[:, None] * waves).flatten()
    expected = torch.cat([angles.sin(), angles.cos()])
    torch.testing.assert_close(grid_relations(3)[0, 5], expected, atol=1e-4, rtol=0)


def test_relations_change_what_regions_see_of_each_other() -> None:
    decoder, (features, _, _) = small(FAMILY), batch()
    assert isinstance(decoder, RelationTransformer)
    before = decoder.encode(features)[0]["photo_keys_0"]
    order = torch.tensor([1, 0, 2, 3])
    moved = decoder.encode(features[:, order])[0]["photo_keys_0"]
    assert not torch.allclose(moved, before[:, order], atol=1e-4)
    for layer in decoder.photo_layers:
        nn.init.zeros_(layer.get_parameter("relation.weight"))
    unmoved = decoder.encode(features)[0]["photo_keys_0"], decoder.encode(features[:, order])[0]["photo_keys_0"]
    torch.testing.assert_close(unmoved[1], unmoved[0][:, order])


def test_biases_for_export_follow_the_weights_when_evaluation_begins() -> None:
    decoder = small(FAMILY)
    assert isinstance(decoder, RelationTransformer)
    layer = decoder.photo_layers[0]
    with torch.no_grad():
        layer.get_parameter("relation.weight").mul_(-3)
    decoder.eval()
    torch.testing.assert_close(layer.get_buffer("bias"), layer.relation_bias(decoder.relations))  # type: ignore[operator]


def test_interface_appends_a_key_and_a_value_a_layer_and_takes_the_position() -> None:
    decoder = small(FAMILY)
    interface = decoder.interface()
    interface.check("manifest", MAX_TOKENS)
    assert interface.position
    assert set(interface.state) == {f"word_{kind}_{layer}" for kind in ("keys", "values") for layer in (0, 1)}
    assert {(spec.shape, spec.first, spec.carry) for spec in interface.state.values()} == {
        ((MAX_TOKENS, 32), "zeros", "append")
    }
    assert {spec.shape for spec in interface.held.values()} == {(REGIONS, 32)}


def test_cache_behind_the_position_is_not_looked_at() -> None:
    decoder, (features, _, _) = small(FAMILY), batch()
    held, first = decoder.encode(features)
    token = torch.tensor([4, 5, 6])
    state = {name: torch.randn_like(part) for name, part in decoder.begin(first, 3).items()}
    later = {name: torch.cat([part[:, :2], part[:, 2:] * 100], 1) for name, part in state.items()}
    earlier = {name: part * 2 for name, part in state.items()}
    position = decoder.position_at(2, token)
    found = decoder.step(token, state, held, position).scores
    torch.testing.assert_close(decoder.step(token, later, held, position).scores, found)
    assert not torch.allclose(decoder.step(token, earlier, held, position).scores, found, atol=1e-3)


def test_roles_tell_what_runs_once_a_photo() -> None:
    roles = small(FAMILY).roles()
    once = {name for name, role in roles.items() if role is Role.PER_PHOTO}
    assert {name for name in once if name.startswith("word_layers.")} == {
        f"word_layers.{layer}.photo_{kind}" for layer in (0, 1) for kind in ("key", "value")
    }
    assert {name for name in roles if name.startswith("photo_layers.")} < once
    assert roles["project"] is Role.PER_PHOTO and roles["output"] is Role.PER_WORD
    assert roles["embedding"] is Role.LOOKED_UP
