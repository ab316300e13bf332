"""The architectures that a preset describes."""

from typing import Any

from corrdiff_core.dataset import INVARIANTS
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.grid import Domain
from corrdiff_core.manifest import Network, Part
from corrdiff_core.model.unet_config import UNetConfig
from corrdiff_core.train.preset import Preset
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES

REGRESSION_LAYOUT: tuple[Part, ...] = ("input", "grid", "invariants")
DIFFUSION_LAYOUT: tuple[Part, ...] = ("mean", "input", "invariants")


def networks(preset: Preset, domain: Domain) -> tuple[Network, Network]:
    """Regression on [input, grid, invariants] without, diffusion on [mean, input, invariants] with a noise embedding.

    Raises ConfigurationError where no level of the networks has a resolution that the preset gives attention to: on
    another domain it would silently disappear.
    """
    common: dict[str, Any] = {
        "out_channels": len(OUTPUT_NAMES), "resolution": domain.shape, "model_channels": preset.model_channels,
        "channel_mult": preset.channel_mult, "num_blocks": preset.num_blocks,
        "attn_resolutions": preset.attn_resolutions, "bottleneck_attention": preset.bottleneck_attention,
        "dropout": preset.dropout,
    }  # fmt: skip
    known = len(INPUT_NAMES) + len(INVARIANTS)
    regression = UNetConfig(in_channels=len(OUTPUT_NAMES) + known + 4, embedding="zero", **common)
    diffusion = UNetConfig(in_channels=2 * len(OUTPUT_NAMES) + known, embedding="positional", **common)
    _refuse_lost_attention(preset, domain)
    return Network(regression.to_dict(), REGRESSION_LAYOUT), Network(diffusion.to_dict(), DIFFUSION_LAYOUT)


def _refuse_lost_attention(preset: Preset, domain: Domain) -> None:
    levels = [domain.shape[0] >> level for level in range(len(preset.channel_mult))]
    lost = [resolution for resolution in preset.attn_resolutions if resolution not in levels]
    if lost:
        raise ConfigurationError(
            f"preset {preset.name}: attention at {lost} rows, the levels of the domain {domain.name} have {levels}: "
            "choose among these"
        )
