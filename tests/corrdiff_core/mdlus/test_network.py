"""What a `.mdlus` file describes: every option and weight is used or refused by name, none is dropped."""

import json
import re
import zipfile

import pytest
import torch

from corrdiff_core.mdlus import load_network
from corrdiff_core.model.edm import Denoiser, RegressionUNet
from tests.corrdiff_core.mdlus.mdlus_cases import (
    same_network,
    small_parts,
    state_of,
    with_options,
    with_state,
)

CONV = "model.enc.16x16_conv.weight"
PARTS = small_parts()


class TestOptions:
    def test_bare_infinity(self, load):
        parts = with_options(PARTS, sigma_min=0.0, sigma_max=float("inf"))
        assert b'"sigma_max": Infinity' in parts["args.json"]
        assert same_network(load(parts), load(PARTS))

    def test_nested_under_model_kwargs_or_flat(self, load):
        described = json.loads(PARTS["args.json"])
        flat = described["__args__"]
        outer = {name: flat.pop(name) for name in ("img_resolution", "img_in_channels", "img_out_channels")}
        described["__args__"] = outer | {"model_type": flat.pop("model_type"), "model_kwargs": flat}
        assert same_network(load(PARTS | {"args.json": json.dumps(described).encode()}), load(PARTS))

    def test_the_same_option_twice(self, load, refused):
        assert same_network(load(with_options(PARTS, model_kwargs={"num_blocks": 1})), load(PARTS))
        refused(with_options(PARTS, model_kwargs={"num_blocks": 2}), "num_blocks stand twice in args.json, with")
        refused(with_options(PARTS, model_kwargs=[1]), r"model_kwargs is \[1\] where an object is due")

    @pytest.mark.parametrize("nested", [False, True])
    def test_an_unknown_option(self, refused, nested):
        extra = {"warp": 9, "curl": True}
        parts = with_options(PARTS, **({"model_kwargs": extra} if nested else extra))
        refused(parts, "options curl, warp are unknown, and what they do would be missing; upgrade this package")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"encoder_type": "residual"}, "encoder_type is 'residual', this package knows 'standard' only"),
            ({"decoder_type": "skip"}, "decoder_type is 'skip', this package knows 'standard' only"),
            ({"act": "gelu"}, "act is 'gelu', this package knows 'silu' only"),
            ({"label_dim": 3}, "label_dim is 3, this package knows 0 only"),
            ({"resample_filter": [1, 3, 3, 1]}, r"resample_filter is \[1, 3, 3, 1\], this package knows \[1, 1\] only"),
            ({"model_type": "DhariwalUNet"}, "'DhariwalUNet'; this package reads SongUNet, SongUNetPosEmbd"),
            ({"embedding_type": "fourier"}, "embedding is 'fourier', must be 'positional' or 'zero'"),
            ({"gridtype": "test", "N_grid_channels": 4}, "4 position channels of kind 'test'"),
            ({"sigma_data": 0}, "sigma_data is 0, a number above 0 is due"),
            ({"sigma_data": "0.5"}, "sigma_data is '0.5', a number above 0 is due"),
            ({"num_blocks": 1.5}, "num_blocks is 1.5, a whole number is due"),
            ({"img_in_channels": None}, "img_in_channels is None, a whole number is due"),
            ({"img_resolution": "16"}, "img_resolution is '16', a whole number or two are due"),
            ({"img_resolution": [16, 16, 1]}, r"img_resolution is \[16, 16, 1\], a whole number or two are due"),
            ({"channel_mult": 2}, "its options describe no network of CorrDiff"),
        ],
    )
    def test_an_unsupported_option(self, refused, options, message):
        refused(with_options(PARTS, **options), message)

    def test_no_resolution(self, refused):
        described = json.loads(PARTS["args.json"])
        del described["__args__"]["img_resolution"]
        refused(PARTS | {"args.json": json.dumps(described).encode()}, "no network of CorrDiff: 'img_resolution'")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"model_channels": 4_000_000}, r"map_layer0\.weight has shape \(32, 8\), its options say \(16000000, "),
            ({"num_blocks": 2}, r"missing key .* and \d+ more: weights and options do not belong together"),
            ({"img_resolution": 32}, r"missing key model\.enc\.32x32_conv\.weight"),
            ({"img_out_channels": 3}, rf"{re.escape(CONV)} has shape \(8, 20, 3, 3\), which does not take 3 channels"),
        ],
    )
    def test_options_of_other_weights(self, refused, options, message):
        """Before anything is allocated: an option may be as wrong as terabytes."""
        refused(with_options(PARTS, **options), message)


class TestWeights:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, refused, value):
        state = state_of(PARTS)
        state[CONV][3, 2, 1, 0] = value
        refused(with_state(PARTS, state), rf"not finite: {re.escape(CONV)}; training failed, or the file is damaged")

    def test_a_missing_key(self, refused):
        state = state_of(PARTS)
        del state["model.dec.8x8_in0.attn.qkv.bias"]
        refused(with_state(PARTS, state), r"missing key model\.dec\.8x8_in0\.attn\.qkv\.bias: weights and options do")
        del state[CONV]
        refused(with_state(PARTS, state), rf"missing key {re.escape(CONV)}")

    @pytest.mark.parametrize("key", ["model.enc.16x16_block7.conv0.weight", "ema", "norm2.bias"])
    def test_an_unknown_key(self, refused, key):
        refused(with_state(PARTS, state_of(PARTS) | {key: torch.ones(1)}), f"unknown key {re.escape(key)}: weights and")

    def test_another_shape(self, refused):
        state = state_of(PARTS)
        key = "model.dec.16x16_aux_conv.weight"
        refused(
            with_state(PARTS, state | {key: state[key][:3]}),
            rf"{re.escape(key)} has shape \(3, 8, 3, 3\), its options say \(4, 8, 3, 3\)",
        )

    @pytest.mark.parametrize("shape", [(), (8,), (8, 20, 9), (8, 19, 3, 3)])
    def test_another_shape_of_the_first_layer(self, refused, shape):
        state = state_of(PARTS) | {CONV: torch.ones(shape)}
        refused(with_state(PARTS, state), rf"{re.escape(CONV)} has shape {re.escape(str(shape))}")

    @pytest.mark.parametrize("kind", ["int", "complex", "sparse", "meta"])
    def test_no_plain_numbers(self, refused, kind):
        weight = state_of(PARTS)[CONV]
        other = {
            "int": weight.int(),
            "complex": weight.to(torch.complex64),
            "sparse": weight.to_sparse(),
            "meta": weight.to("meta"),
        }
        refused(
            with_state(PARTS, state_of(PARTS) | {CONV: other[kind]}),
            rf"not of plain floating-point numbers: {re.escape(CONV)}",
        )

    def test_half_precision_is_taken(self, load):
        state = {name: value.half() for name, value in state_of(PARTS).items()}
        network = load(with_state(PARTS, state))
        assert all(weight.dtype == torch.float32 for weight in network.parameters())
        torch.testing.assert_close(network.state_dict()[CONV], state[CONV].float(), rtol=0, atol=0)


class TestSameNetwork:
    def test_attention_keys_old_and_new(self, load, refused):
        new = state_of(PARTS)
        pairs = ((".attn.norm.", ".norm2."), (".attn.qkv.", ".qkv."), (".attn.proj.", ".proj."))
        old = {}
        for key, value in new.items():
            for later, earlier in pairs:
                key = key.replace(later, earlier)
            old[key] = value
        assert not any(".attn." in key for key in old)
        assert same_network(load(with_state(PARTS, old)), load(PARTS))
        refused(with_state(PARTS, old | new), r"under an old and a new name: .*norm2.bias.* and \d+ more; remove those")

    def test_constants_are_ignored(self, load):
        constants = {
            "device_buffer": torch.empty(0),
            "model.device_buffer": torch.zeros(1),
            "model.enc.16x16_block0.conv0.resample_filter": torch.full((1, 1, 2, 2), 0.25),
            "model.map_noise.freqs": torch.ones(4),
            "model.map_augment.weight": torch.full((8, 3), torch.nan),
        }
        assert same_network(load(with_state(PARTS, state_of(PARTS) | constants)), load(PARTS))

    def test_tar_zip_and_names_with_a_folder(self, load, tmp_path):
        expected = load(PARTS)
        assert same_network(load(PARTS, "tar"), expected)
        for kind in ("zip", "tar"):
            assert same_network(load({f"./{name}": content for name, content in PARTS.items()}, kind), expected)
        with zipfile.ZipFile(tmp_path / "squeezed.mdlus", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in PARTS.items():
                archive.writestr(name, content)
        assert same_network(load_network(tmp_path / "squeezed.mdlus"), expected)

    @pytest.mark.parametrize(
        ("class_name", "kind", "scaled"),
        [
            ("UNet", RegressionUNet, None),
            ("CorrDiffRegressionUNet", RegressionUNet, None),
            ("EDMPrecondSR", Denoiser, True),
            ("EDMPrecondSRV2", Denoiser, False),
            ("EDMPrecondSuperResolution", Denoiser, False),
        ],
    )
    def test_every_class(self, load, class_name, kind, scaled):
        network = load(small_parts(class_name))
        assert type(network) is kind
        assert getattr(network, "scale_conditioning", None) is scaled
        assert not network.training
        assert not any(weight.requires_grad for weight in network.parameters())
        if scaled is not None:
            for given_option in (False, True):
                assert load(small_parts(class_name, scale_cond_input=given_option)).scale_conditioning is given_option

    def test_the_weights_are_those_of_the_file(self, load):
        network = load(PARTS)
        state = state_of(PARTS)
        assert network.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
