"""NVIDIA's CorrDiff checkpoints (`.mdlus`) and inference packages, read without any package of NVIDIA's.

`load_network` reads one network; `read_package` and `import_package` turn a whole inference package into a checkpoint.
"""

from corrdiff_core.mdlus.network import load_network
from corrdiff_core.mdlus.package import InferencePackage, import_package, read_package

__all__ = ["InferencePackage", "import_package", "load_network", "read_package"]
