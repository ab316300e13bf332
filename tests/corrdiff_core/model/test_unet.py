"""The UNet: sizes, names, positions, memory format, other fields than its own, mixed precision, gradients."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.model.positions import position_channels
from corrdiff_core.model.unet import Attention, Block, UNet, positional_embedding, resampled
from corrdiff_core.model.unet_config import ADDED, UNetConfig
from tests.corrdiff_core.model.model_cases import random_unet, small_config


@pytest.mark.parametrize(
    ("embedding", "in_channels", "parameters"),
    [("zero", 4 + 16, 79_673_988), ("positional", 4 + 16, 80_002_692), ("positional", 4 + 20, 80_007_300)],
)
def test_taiwan_networks_have_the_published_number_of_parameters(embedding, in_channels, parameters):
    with torch.device("meta"):
        unet = UNet(UNetConfig(in_channels=in_channels, out_channels=4, embedding=embedding))
    assert sum(parameter.numel() for parameter in unet.parameters()) == parameters


def test_layers_have_the_published_names():
    with torch.device("meta"):
        names = set(UNet(UNetConfig(in_channels=20, out_channels=4)).state_dict())
    assert {
        "map_layer0.weight", "map_layer1.bias", "enc.448x448_conv.weight", "enc.448x448_block0.norm0.weight",
        "enc.448x448_block3.conv1.bias", "enc.224x224_down.skip.weight", "enc.28x28_block0.attn.qkv.weight",
        "dec.28x28_in0.attn.proj.bias", "dec.28x28_in1.affine.weight", "dec.28x28_block4.attn.norm.weight",
        "dec.448x448_up.conv0.weight", "dec.448x448_aux_norm.weight", "dec.448x448_aux_conv.bias",
    } <= names  # fmt: skip
    assert not any(".attn." in name for name in names if "28x28" not in name)


configs = st.builds(
    UNetConfig,
    in_channels=st.integers(1, 40),
    out_channels=st.integers(1, 8),
    resolution=st.tuples(st.integers(1, 8), st.integers(1, 8)).map(lambda n: (16 * n[0], 16 * n[1])),
    model_channels=st.integers(1, 40).map(lambda n: 4 * n),
    channel_mult=st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple),
    num_blocks=st.integers(1, 3),
    attn_resolutions=st.lists(st.integers(1, 64), max_size=3).map(tuple),
    bottleneck_attention=st.booleans(),
    dropout=st.floats(0, 0.5),
    embedding=st.sampled_from(["positional", "zero"]),
    unbiased_norm=st.booleans(),
    channel_mult_noise=st.integers(1, 3),
    additive_positions=st.booleans(),
    attention_over=st.sampled_from(["points", "channels"]),
)


@given(configs)
def test_a_config_survives_json(config):
    assert UNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_and_missing_keys_are_refused():
    values = small_config().to_dict()
    del values["dropout"]
    with pytest.raises(ConfigurationError, match=r"missing keys \['dropout'\], unknown keys \['drop_out'\]"):
        UNetConfig.from_dict(values | {"drop_out": 0.1})


def test_fields_that_were_added_later_may_be_missing():
    """Manifests hold a UNet's fields of their day; the defaults of later ones say what held then."""
    values = small_config().to_dict()
    assert set(values) > ADDED
    old = {name: value for name, value in values.items() if name not in ADDED}
    assert UNetConfig.from_dict(old) == small_config()
    for name in ADDED:
        assert UNetConfig.from_dict({key: value for key, value in values.items() if key != name}) == small_config()
    unet = UNet(UNetConfig.from_dict(old))
    assert set(unet.state_dict()) == set(random_unet().state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_over": "rows"}, "attention over 'rows', must be over 'points' or 'channels'"),
        ({"channel_mult_noise": 0}, "at least 1"),
        ({"positions": "test", "position_count": 4}, "4 position channels of kind 'test'"),
        ({"positions": "sinusoidal"}, "0 position channels of kind 'sinusoidal'"),
        ({"positions": "linear", "position_count": 4}, "choose 2 linear ones"),
        ({"position_count": 4}, "4 position channels of kind 'none'"),
        ({"embedding": "fourier"}, "'positional' or 'zero'"),
        ({"resolution": 33}, "33 x 33 points does not fit.*multiples of 2"),
        ({"resolution": (32, 31)}, "32 x 31"),
        ({"model_channels": 18}, "multiple of 4"),
        ({"channel_mult": ()}, "at least 1"),
        ({"num_blocks": 0}, "at least 1"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        small_config(**changes)


@settings(max_examples=30, deadline=None)
@given(
    model_channels=st.sampled_from([4, 12, 16, 24, 32]),
    mult=st.sampled_from([(1,), (1, 2), (1, 3), (2, 1), (1, 2, 3)]),
    blocks=st.integers(1, 2),
    embedding=st.sampled_from(["positional", "zero"]),
)
def test_networks_of_many_shapes_run(model_channels, mult, blocks, embedding):
    config = small_config(
        model_channels=model_channels, channel_mult=mult, num_blocks=blocks, embedding=embedding, resolution=(8, 12)
    )
    with torch.no_grad():
        assert UNet(config)(torch.randn(2, 7, 8, 12), torch.tensor([0.1, -0.4])).shape == (2, 3, 8, 12)


def test_attention_can_be_left_out():
    unet = UNet(small_config(attn_resolutions=(), bottleneck_attention=False))
    assert not any("attn" in name for name in unet.state_dict())


def test_crops_of_another_size_are_accepted_and_others_named():
    unet = random_unet(attn_resolutions=(), bottleneck_attention=False, channel_mult=(1, 2, 2))
    assert unet(torch.randn(1, 7, 20, 64), torch.zeros(1)).shape == (1, 3, 20, 64)
    with pytest.raises(
        ConfigurationError, match=r"22 x 64 points .* 4 times coarser; crop or pad both sides to multiples of 4"
    ):
        unet(torch.randn(1, 7, 22, 64), torch.zeros(1))


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": "sinusoidal", "position_count": 4},
        {"positions": "learnable", "position_count": 3},
        {"additive_positions": True},
    ],
)
def test_a_network_with_positions_needs_the_whole_domain(changes):
    unet = random_unet(resolution=(32, 16), **changes)
    assert unet(torch.randn(2, 7, 32, 16), torch.zeros(1)).shape == (2, 3, 32, 16)
    message = (
        r"a field of \(16, 32\) points for a network that knows the positions of \(32, 16\): give it the whole domain"
    )
    with pytest.raises(ConfigurationError, match=message):
        unet(torch.randn(1, 7, 16, 32), torch.zeros(1))


@pytest.mark.parametrize("positions", ["sinusoidal", "sinusoidal_octave", "learnable"])
def test_positions_are_channels_behind_the_input(positions):
    """As a network without positions computes that is given them."""
    own = random_unet(positions=positions, position_count=8)
    given = random_unet(in_channels=7 + 8)
    given.load_state_dict({name: value for name, value in own.state_dict().items() if name != "pos_embd"})
    x, labels = torch.randn(2, 7, 32, 32), torch.tensor([0.3, -1.0])
    fields = own.pos_embd if positions == "learnable" else position_channels(positions, 8, 32, 32)
    assert ("pos_embd" in own.state_dict()) is (positions == "learnable")
    with torch.no_grad():
        expected = given(torch.cat([x, fields.expand(2, -1, -1, -1)], dim=1), labels)
        torch.testing.assert_close(own(x, labels), expected, rtol=0, atol=0)


def test_additive_positions_are_added_to_the_first_convolution():
    unet = random_unet(additive_positions=True)
    without = random_unet()
    state = unet.state_dict()
    field = state.pop("spatial_emb")
    assert field.shape == (1, 16, 32, 32)
    without.load_state_dict(state)
    without.enc["32x32_conv"].register_forward_hook(lambda _module, _inputs, output: output + field)
    x, labels = torch.randn(2, 7, 32, 32), torch.tensor([0.3])
    with torch.no_grad():
        torch.testing.assert_close(unet(x, labels), without(x, labels), rtol=0, atol=0)


def test_layers_are_named_by_rows_and_attention_sits_where_rows_say():
    names = set(UNet(small_config(resolution=(32, 64))).state_dict())
    assert {"enc.32x32_conv.weight", "enc.16x16_block0.attn.qkv.weight"} <= names
    assert not any("64" in name for name in names)


def test_the_noise_embedding_may_start_wider():
    unet = UNet(small_config(channel_mult_noise=3))
    assert unet.map_layer0.weight.shape == (64, 48)
    assert unet(torch.randn(1, 7, 32, 32), torch.zeros(1)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("over", ["points", "channels"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_attention_is_an_explicit_softmax(over, memory_format):
    """Queries and keys are compared over what is left: a point by its channels, a channel by its points."""
    attention = Attention(small_config(attention_over=over), 16).to(memory_format=memory_format)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 16, 4, 6, generator=generator).to(memory_format=memory_format)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        qkv = attention.qkv(attention.norm(x)).reshape(2, 16, 3, 24)  # field, channel, which, point
        query, key, value = qkv.unbind(2)
        if over == "points":
            weights = torch.softmax(torch.einsum("ncq,nck->nqk", query, key) / math.sqrt(16), dim=-1)
            mixed = torch.einsum("nqk,nck->ncq", weights, value)
        else:
            weights = torch.softmax(torch.einsum("ncp,ndp->ncd", query, key) / math.sqrt(24), dim=-1)
            mixed = torch.einsum("ncd,ndp->ncp", weights, value)
        expected = (attention.proj(mixed.reshape(2, 16, 4, 6)) + x) * math.sqrt(0.5)
        torch.testing.assert_close(attention(x), expected, rtol=0, atol=2e-5)


def test_every_activation_stays_channels_last():
    unet = random_unet().to(memory_format=torch.channels_last)
    broken = []

    def check(name):
        def hook(_module, _inputs, output):
            if output.ndim == 4 and not output.is_contiguous(memory_format=torch.channels_last):
                broken.append(name)

        return hook

    for name, module in unet.named_modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm | Block):
            module.register_forward_hook(check(name))
    x = torch.randn(2, 7, 32, 32)
    assert unet(x, torch.zeros(2)).is_contiguous(memory_format=torch.channels_last)
    assert broken == []


def test_memory_format_and_recorded_gradients_do_not_change_the_result():
    x, labels = torch.randn(2, 7, 32, 32), torch.tensor([0.3, -1.0])
    unet = random_unet()
    expected = unet(x, labels).detach()
    with torch.no_grad():
        torch.testing.assert_close(unet(x, labels), expected, rtol=0, atol=2e-6)
        fast = unet.to(memory_format=torch.channels_last)
        torch.testing.assert_close(fast(x, labels), expected, rtol=0, atol=2e-5)


def test_one_label_stands_for_all_fields():
    x, unet = torch.randn(3, 7, 32, 32), random_unet()
    with torch.no_grad():
        each, all_ = unet(x, torch.full((3,), 0.7)), unet(x, torch.tensor([0.7]))
    torch.testing.assert_close(all_, each, rtol=0, atol=2e-5)


def test_noise_labels_matter_only_to_a_positional_embedding():
    x = torch.randn(1, 7, 32, 32)
    with torch.no_grad():
        for embedding, equal in (("positional", False), ("zero", True)):
            unet = random_unet(embedding=embedding)
            assert torch.equal(unet(x, torch.tensor([0.1])), unet(x, torch.tensor([1.1]))) is equal


def test_the_input_is_left_as_it_was():
    x = torch.randn(1, 7, 32, 32)
    before = x.clone()
    with torch.no_grad():
        random_unet()(x, torch.zeros(1))
    assert torch.equal(x, before)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_reach_every_parameter_and_agree_with_float64(memory_format):
    x, labels = torch.randn(2, 7, 32, 32), torch.tensor([0.3, -1.0])
    unet = random_unet().to(memory_format=memory_format)
    exact = random_unet().double()
    unet(x, labels).square().mean().backward()
    exact(x.double(), labels.double()).square().mean().backward()
    for (name, parameter), reference in zip(unet.named_parameters(), exact.parameters(), strict=True):
        scale = float(reference.grad.abs().max())
        assert scale > 0, name
        torch.testing.assert_close(parameter.grad.double(), reference.grad, rtol=0, atol=2e-3 * scale, msg=name)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bfloat16_autocast_trains_and_stays_close(memory_format):
    x, labels = torch.randn(2, 7, 32, 32), torch.tensor([0.3, -1.0])
    unet = random_unet().to(memory_format=memory_format)
    expected = unet(x, labels).detach()
    with torch.autocast("cpu", torch.bfloat16):
        output = unet(x, labels)
    output.float().square().mean().backward()
    assert (output - expected).abs().mean() < 0.02 * expected.abs().mean()
    assert all(torch.isfinite(parameter.grad).all() for parameter in unet.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu():
    x, labels, unet = torch.randn(2, 7, 32, 32), torch.tensor([0.3, -1.0]), random_unet()
    with torch.no_grad():
        expected = unet(x, labels)
        fast = unet.to(device="cuda", memory_format=torch.channels_last)
        result = fast(x.cuda(), labels.cuda())
        with torch.autocast("cuda", torch.bfloat16):
            rough = fast(x.cuda(), labels.cuda())
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=5e-3)
    assert (rough.cpu() - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_dropout_acts_in_training_only():
    unet, x = random_unet(dropout=0.5), torch.randn(1, 7, 32, 32)
    labels = torch.zeros(1)
    assert torch.equal(unet(x, labels), unet(x, labels))
    unet.train()
    assert not torch.equal(unet(x, labels), unet(x, labels))


def test_resampling_is_the_box_filter():
    x = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    assert resampled(x, "down").tolist() == [[[[4.0]]]]
    assert resampled(x, "up").tolist() == [[[[1, 1, 3, 3], [1, 1, 3, 3], [5, 5, 7, 7], [5, 5, 7, 7]]]]
    assert resampled(x, None) is x


def test_positional_embedding_holds_sines_then_cosines():
    embedding = positional_embedding(torch.tensor([0.5]), 4)[0]
    expected = [0.5, 0.5e-4]
    torch.testing.assert_close(embedding[:2], torch.tensor(expected).sin())
    torch.testing.assert_close(embedding[2:], torch.tensor(expected).cos())
