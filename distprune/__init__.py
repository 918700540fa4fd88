"""distprune finds out how far a Transformer can be cut, and which heads and neurons to keep."""

from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.loading import load, load_mask, save

__version__ = "0.1.0"

__all__ = ["Mask", "UnitKind", "__version__", "load", "load_mask", "save"]
