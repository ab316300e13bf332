"""Manifests: what is written is read, every field counts in the digest, nothing unknown is accepted."""

import copy
import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.errors import CheckpointError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.manifest import MANIFEST, Manifest, Network, Sampling, read_manifest
from corrdiff_core.normalization import CWA_INPUT_STATISTICS, Statistics
from tests.small_domain import manifest

OTHER_STATISTICS = replace(CWA_INPUT_STATISTICS, center=(40.0, *CWA_INPUT_STATISTICS.center[1:]))
REORDERED = Statistics(
    *(tuple(reversed(getattr(CWA_INPUT_STATISTICS, column))) for column in ("names", "center", "scale"))
)


@pytest.fixture
def described():
    return manifest()


@pytest.fixture
def values(described):
    return described.to_dict()


def test_it_comes_back_equal_from_json(described):
    found = Manifest.from_dict(json.loads(described.to_json()))
    assert found == described
    assert found.digest == described.digest
    assert found.to_json() == described.to_json()


names = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", fullmatch=True)
numbers = st.floats(1e-3, 1e3)
notes = st.dictionaries(
    st.text(max_size=8), st.one_of(st.text(max_size=8), st.integers(), st.booleans(), st.none()), max_size=4
)


@given(names, numbers, st.integers(1, 99), st.integers(2, 99), st.sampled_from(["heun", "euler"]), notes, notes)
def test_any_sound_manifest_comes_back(name, sigma_data, members, num_steps, solver, training, scores):
    changed = replace(
        manifest(),
        name=name,
        sigma_data=sigma_data,
        defaults=Sampling(members, num_steps, solver),
        training=training,
        scores=scores,
    )
    found = Manifest.from_dict(json.loads(changed.to_json()))
    assert (found, found.identity) == (changed, changed.identity)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"domain": TAIWAN},
        {"domain": replace(TAIWAN, crop=2)},
        {"input_statistics": OTHER_STATISTICS},
        {"input_statistics": REORDERED},
        {"invariants": ("elevation",)},
        {"invariants": ("land_fraction", "elevation")},
        {"regression": replace(manifest().regression, conditioning=("grid", "input", "invariants"))},
        {"diffusion": replace(manifest().diffusion, unet={**manifest().diffusion.unet, "dropout": 0.1})},
        {"preconditioning": "EDMPrecondSR"},
        {"defaults": Sampling(3, 3, "euler")},
        {"defaults": Sampling(3, 2, "euler", sigma_max=800.0)},
        {"sigma_data": 0.6},
        {"training": {"data": "other"}},
        {"scores": {"t2m": 0.4}},
    ],
    ids=lambda change: f"{next(iter(change))}",
)
def test_every_field_counts_in_the_digest(described, change):
    assert replace(described, **change).digest != described.digest


def test_the_weights_count_in_the_digest(described):
    first = described.with_files({"regression.safetensors": b"weights"})
    second = described.with_files({"regression.safetensors": b"Weights"})
    assert len({described.digest, first.digest, second.digest}) == 3
    assert first.files == {"regression.safetensors": hashlib.sha256(b"weights").hexdigest()}


def test_the_order_of_keys_does_not_count(values, described):
    assert Manifest.from_dict(dict(reversed(values.items()))).digest == described.digest


def test_the_identity_is_the_name_and_eight_digits(described):
    assert described.identity == f"small-{described.digest[:8]}"
    assert len(described.digest) == 64


def test_it_knows_its_variables(described):
    assert [variable.name for variable in described.inputs] == list(CWA_INPUT_STATISTICS.names)
    assert [variable.units for variable in described.outputs] == ["dBZ", "K", "m s-1", "m s-1"]


class TestRefusals:
    @pytest.mark.parametrize("key", sorted(manifest().to_dict()))
    def test_a_missing_key(self, values, key):
        del values[key]
        with pytest.raises(CheckpointError, match=rf"missing keys \['{key}'\], unknown keys \[\]"):
            Manifest.from_dict(values)

    def test_an_unknown_key(self, values):
        with pytest.raises(CheckpointError, match=r"unknown keys \['ema'\]"):
            Manifest.from_dict(values | {"ema": 1})

    @pytest.mark.parametrize(
        ("part", "change"),
        [
            ("domain", {"extra": 1}),
            ("domain", {"step": None, "input_box": {"south": 1}}),
            ("domain", {"input_box": {"south": 9.0, "north": 8.0, "west": 0.0, "east": 1.0}}),
            ("domain", {"input_box": None}),
            ("input_statistics", {"names": ["tcwv"]}),
            ("input_statistics", {"scale": [0.0] * 12}),
            ("input_statistics", {"median": []}),
            ("regression", {"layout": []}),
            ("regression", {"conditioning": ["input", "clock"]}),
            ("defaults", {"members": 0}),
            ("defaults", {"members": "many"}),
            ("defaults", {"num_steps": 1}),
            ("defaults", {"solver": "dpm"}),
            ("defaults", {"churn": 1.0}),
        ],
    )
    def test_a_damaged_part(self, values, part, change):
        damaged = copy.deepcopy(values)
        damaged[part].update(change)
        with pytest.raises(CheckpointError):
            Manifest.from_dict(damaged)

    @pytest.mark.parametrize("part", ["domain", "output_statistics", "invariants", "diffusion", "defaults", "name"])
    @pytest.mark.parametrize("wrong", [None, 3, "text"])
    def test_a_part_of_another_kind(self, values, part, wrong):
        if (part, wrong) in {("invariants", "text"), ("name", "text")}:
            return
        with pytest.raises(CheckpointError):
            Manifest.from_dict(values | {part: wrong})

    def test_other_units(self, values):
        values["units"] = values["units"] | {"z500": "gpm"}
        with pytest.raises(CheckpointError, match=r"gpm.*this package works in .*m2 s-2"):
            Manifest.from_dict(values)

    def test_another_format(self, values):
        with pytest.raises(CheckpointError, match="format 2, this package reads 1"):
            Manifest.from_dict(values | {"format": 2})

    @pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "..", "naïve/../x", "a\n"])
    def test_a_name_that_is_no_file_name(self, described, name):
        with pytest.raises(CheckpointError, match="begin with a letter or digit"):
            replace(described, name=name)

    def test_unknown_variables(self, described):
        unknown = Statistics(("tcwv", "z700"), (0.0, 0.0), (1.0, 1.0))
        with pytest.raises(CheckpointError, match=r"unknown variables \['z700'\]"):
            replace(described, input_statistics=unknown)

    def test_an_unknown_preconditioning(self, described):
        with pytest.raises(CheckpointError, match="'EDMPrecond' is none of"):
            replace(described, preconditioning="EDMPrecond")

    @pytest.mark.parametrize("sigma_data", [0.0, -0.5, float("nan")])
    def test_an_impossible_sigma_data(self, described, sigma_data):
        with pytest.raises(CheckpointError, match="sigma_data"):
            replace(described, sigma_data=sigma_data)

    def test_an_unknown_part_of_the_conditioning(self):
        with pytest.raises(
            CheckpointError, match=r"\['clock'\] is unknown: choose among input, grid, invariants, mean"
        ):
            Network({}, ("input", "clock"))


class TestRead:
    def test_a_folder(self, tmp_path, described):
        (tmp_path / MANIFEST).write_text(described.to_json())
        assert read_manifest(str(tmp_path)) == described
        assert read_manifest(f"{tmp_path}/") == described
        assert read_manifest(f"file://{tmp_path}") == described

    def test_no_checkpoint_here(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"nowhere: no checkpoint here, manifest\.json is missing"):
            read_manifest(str(tmp_path / "nowhere"))

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null", b"[]", b"3", b"{}"])
    def test_a_damaged_file_is_named(self, tmp_path, content):
        (tmp_path / MANIFEST).write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{MANIFEST}: "):
            read_manifest(str(tmp_path))

    def test_torch_is_not_needed(self):
        program = "import corrdiff_core.manifest, sys; sys.exit('torch' in sys.modules)"
        subprocess.run([sys.executable, "-c", program], check=True)
