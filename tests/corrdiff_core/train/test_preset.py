"""Presets: the three of the package, and files of one's own with every key checked."""

import tomllib
from dataclasses import asdict, fields, replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.manifest import Sampling, read_manifest
from corrdiff_core.model.unet import UNet
from corrdiff_core.model.unet_config import UNetConfig
from corrdiff_core.train import PRESETS, Preset, networks, read_preset
from tests.small_domain import PRESET, SMALL

REPOSITORY = Path(__file__).resolve().parents[3]
DEMO, MINI, FULL = (read_preset(name) for name in PRESETS)
TEXT = (files("corrdiff_core.train") / "presets" / "demo.toml").read_text()


def parameters(network):
    with torch.device("meta"):
        unet = UNet(UNetConfig.from_dict(network.unet))
    return sum(weight.numel() for weight in unet.parameters())


class TestThePackage:
    def test_its_presets_are_named_as_they_are_called(self):
        assert [preset.name for preset in (DEMO, MINI, FULL)] == ["demo", "mini", "taiwan"]

    def test_the_demo_checkpoint_was_trained_as_its_file_says_and_can_be_again(self):
        manifest = read_manifest(str(files("corrdiff_core") / "demo"))
        refined = read_preset(str(REPOSITORY / "docs" / "demo-refine.toml"))
        assert manifest.training["preset"] == refined.to_dict()
        assert manifest.defaults == refined.defaults == DEMO.defaults
        assert networks(refined, TAIWAN) == networks(DEMO, TAIWAN) == (manifest.regression, manifest.diffusion)
        assert manifest.training["initial"].startswith("demo-")

    def test_taiwan_has_the_published_networks_and_two_invariants_more(self):
        """Parameters as in the published checkpoints; each invariant is 3 x 3 weights more in each of 128 channels."""
        counts = [parameters(network) for network in networks(FULL, TAIWAN)]
        assert counts == [79_673_988 + 2 * 9 * 128, 80_002_692 + 2 * 9 * 128]
        assert (FULL.batch, FULL.window_of(TAIWAN)) == (256, (448, 448))

    def test_mini_has_about_the_published_size(self):
        """CorrDiff-Mini's 10.9 million are with attention at its innermost level."""
        assert parameters(networks(MINI, TAIWAN)[1]) == pytest.approx(10.9e6, rel=0.15)
        assert MINI.batch == 256

    @pytest.mark.parametrize("preset", [DEMO, MINI, FULL], ids=PRESETS)
    def test_the_channels_are_those_of_the_conditioning(self, preset):
        """4 outputs or blanks, 12 inputs, 4 of position or 4 of the mean, 2 invariants; only one knows the noise."""
        regression, diffusion = networks(preset, TAIWAN)
        assert regression.conditioning == ("input", "grid", "invariants")
        assert diffusion.conditioning == ("mean", "input", "invariants")
        for network, embedding in ((regression, "zero"), (diffusion, "positional")):
            assert (network.unet["in_channels"], network.unet["out_channels"]) == (4 + 12 + 4 + 2, 4)
            assert network.unet["embedding"] == embedding

    def test_the_demo_fits_its_place_in_the_repository(self):
        count = sum(parameters(network) for network in networks(DEMO, TAIWAN))
        assert 4 * (count + 2 * TAIWAN.shape[0] * TAIWAN.shape[1]) < 12e6

    def test_it_is_plain_data(self):
        assert Preset(**{**asdict(DEMO), "defaults": DEMO.defaults}) == DEMO
        assert tomllib.loads(TEXT) == DEMO.to_dict()


class TestFiles:
    @pytest.fixture
    def written(self, tmp_path):
        def write(text):
            path = tmp_path / "own.toml"
            path.write_text(text)
            return str(path)

        return write

    def test_a_changed_copy(self, written):
        own = read_preset(
            written(TEXT.replace('name = "demo"', 'name = "own"').replace("dropout = 0.0", "dropout = 0"))
        )
        assert own == replace(DEMO, name="own")

    def test_sampling_may_be_left_to_its_defaults(self, written):
        text = TEXT[: TEXT.index("[defaults]")] + "[defaults]\nmembers = 2\n"
        assert read_preset(written(text)).defaults == Sampling(2)

    @pytest.mark.parametrize("name", [field.name for field in fields(Preset) if field.name != "defaults"])
    def test_each_missing_key_is_named(self, written, name):
        lines = [line for line in TEXT.splitlines() if not line.startswith(f"{name} =")]
        with pytest.raises(ConfigurationError, match=rf"own\.toml: missing {name};"):
            read_preset(written("\n".join(lines)))

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("seed = 1", 'seed = 1\nsed = 1\ncolor = "red"', "unknown color, sed"),
            ("rho = 5.0", "rho = 5.0\nrow = 1", r"unknown defaults\.row"),
            ("members = 4", "", r"missing defaults\.members"),
            ("seed = 1", "seed = 1.5", r"seed = 1\.5"),
            ("seed = 1", "seed = true", "seed = True"),
            ("window = 160", 'window = "all"', r"window\..* = 'all'"),
            ("dropout = 0.0", 'dropout = "0.1"', "dropout = '0.1'"),
            ("[1, 2, 2, 2]", "[1, 2, 2.5]", r"channel_mult\.2 = 2\.5"),
            ('"native"', '"cpu"', "bfloat16 = 'cpu'"),
            ("members = 4", "members = 4.5", r"defaults\.members = 4\.5"),
            ('solver = "heun"', 'solver = "rk4"', r"defaults\.solver = 'rk4'"),
            ("members = 4", "members = 0", "0 members"),
            ("learning_rate = 1.5e-3", "learning_rate = nan", "learning_rate = nan must be above 0"),
            ("seed = 1", "seed = 2019-01-01", "seed = '2019-01-01'"),
            ("seed = 1", "seed =", "Invalid value"),
        ],
    )
    def test_what_is_wrong_is_named(self, written, old, new, message):
        with pytest.raises(ConfigurationError, match=rf"preset .*own\.toml: .*{message}"):
            read_preset(written(TEXT.replace(old, new, 1)))

    def test_what_is_no_file(self, tmp_path):
        with pytest.raises(
            ConfigurationError, match=r"no preset is called 'big': use demo, mini, taiwan or FILE\.toml"
        ):
            read_preset("big")
        with pytest.raises(ConfigurationError, match=r"preset .*gone\.toml: .*No such file"):
            read_preset(str(tmp_path / "gone.toml"))


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"windows_per_time": 0}, "windows_per_time = 0 must be at least 1"),
            ({"times_per_step": 0}, "times_per_step = 0"),
            ({"statistics_samples": 0}, "statistics_samples = 0"),
            ({"save_every": 0, "validate_every": 0}, "save_every = 0, validate_every = 0"),
            ({"regression_samples": 1}, "at least one batch"),
            ({"diffusion_samples": 0}, "at least one batch"),
            ({"skip_limit": -1}, "skip_limit = -1 must be 0 or more"),
            ({"dropout": 1.5}, r"dropout = 1\.5 must be in 0\.\.1"),
            ({"gradient_clip": 0.0}, r"gradient_clip = 0\.0 must be above 0"),
            ({"attn_resolutions": (16,)}, "attention in windows of 16 points"),
            ({"bottleneck_attention": True}, "attention in windows of 16 points"),
        ],
    )
    def test_numbers_that_make_no_training(self, change, message):
        with pytest.raises(ConfigurationError, match=f"preset small: .*{message}"):
            replace(PRESET, **change)

    def test_a_name_that_no_model_can_have(self):
        with pytest.raises(Exception, match="model name 'a b'"):
            replace(PRESET, name="a b")

    def test_windows_that_do_not_fit(self):
        with pytest.raises(ConfigurationError, match=r"windows of \(64, 64\) points, the domain small has \(32, 32\)"):
            replace(PRESET, window=64).window_of(SMALL)
        with pytest.raises(ConfigurationError, match=r"windows of \(17, 17\) points, the networks need multiples of 2"):
            replace(PRESET, window=17).window_of(SMALL)

    def test_a_domain_need_not_be_a_square(self):
        oblong = replace(SMALL, columns=50)
        assert replace(PRESET, window="domain").window_of(oblong) == oblong.shape == (32, 48)

    def test_attention_that_would_silently_disappear(self):
        whole = replace(PRESET, window="domain", attn_resolutions=(28,))
        with pytest.raises(
            ConfigurationError, match=r"attention at \[28\] rows, the levels of .* small have \[32, 16\]"
        ):
            networks(whole, SMALL)
        assert networks(replace(whole, attn_resolutions=(16,)), SMALL)
