"""distprune finds out how far a Transformer can be cut, and which heads and neurons to keep."""

from distprune.core.mask import Mask
from distprune.core.units import UnitKind

__version__ = "0.1.0"

__all__ = ["Mask", "UnitKind", "__version__"]
