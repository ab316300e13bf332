"""CorrDiff downscaling: sources, preparation, networks, generation and archive. Knows no orchestrator."""

__version__ = "0.1.0"
