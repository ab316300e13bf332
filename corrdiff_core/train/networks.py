"""The architectures that a preset describes."""

from collections.abc import Sequence
from typing import Any

from corrdiff_core.dataset import INVARIANTS
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.grid import Domain
from corrdiff_core.manifest import Network, Part
from corrdiff_core.model.unet_config import UNetConfig
from corrdiff_core.train.preset import Preset

REGRESSION_LAYOUT: tuple[Part, ...] = ("input", "grid", "invariants")
DIFFUSION_LAYOUT: tuple[Part, ...] = ("mean", "input", "invariants")


def networks(preset: Preset, domain: Domain, invariants: Sequence[str] = INVARIANTS) -> tuple[Network, Network]:
    """Regression on [input, grid, invariants] without, diffusion on [mean, input, invariants] with a noise embedding.

    Without `invariants` on a domain that has none.

    Raises ConfigurationError where no level of the networks has a resolution that the preset gives attention to: on
    another domain it would silently disappear.
    """
    common: dict[str, Any] = {
        "out_channels": len(domain.outputs), "resolution": domain.shape, "model_channels": preset.model_channels,
        "channel_mult": preset.channel_mult, "num_blocks": preset.num_blocks,
        "attn_resolutions": preset.attn_resolutions, "bottleneck_attention": preset.bottleneck_attention,
        "dropout": preset.dropout,
    }  # fmt: skip
    known = len(domain.inputs) + len(invariants)
    regression = UNetConfig(in_channels=len(domain.outputs) + known + 4, embedding="zero", **common)
    diffusion = UNetConfig(in_channels=2 * len(domain.outputs) + known, embedding="positional", **common)
    _refuse_lost_attention(preset, domain)
    described = zip((regression, diffusion), (REGRESSION_LAYOUT, DIFFUSION_LAYOUT), strict=True)
    first, second = (
        Network(unet.to_dict(), tuple(part for part in layout if invariants or part != "invariants"))
        for unet, layout in described
    )
    return first, second


def _refuse_lost_attention(preset: Preset, domain: Domain) -> None:
    levels = [domain.shape[0] >> level for level in range(len(preset.channel_mult))]
    lost = [resolution for resolution in preset.attn_resolutions if resolution not in levels]
    if lost:
        raise ConfigurationError(
            f"preset {preset.name}: attention at {lost} rows, the levels of the domain {domain.name} have {levels}: "
            "choose among these"
        )
