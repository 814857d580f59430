"""EdgeFusion: finds nerves in ultrasound images. Public names load their parts on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "despeckle": "edgefusion.channels.diffusion",
    "edge_map": "edgefusion.channels.edges",
    "load": "edgefusion.inference.predictor",
    "ingest": "edgefusion.data.ingest",
    "train": "edgefusion.training.train",
    "compare": "edgefusion.training.crossval",
    "search": "edgefusion.cluster.search",
    "evaluate": "edgefusion.evaluation.evaluate",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604

if TYPE_CHECKING:
    from edgefusion.channels.diffusion import despeckle as despeckle
    from edgefusion.channels.edges import edge_map as edge_map
    from edgefusion.cluster.search import search as search
    from edgefusion.data.ingest import ingest as ingest
    from edgefusion.evaluation.evaluate import evaluate as evaluate
    from edgefusion.inference.predictor import load as load
    from edgefusion.training.crossval import compare as compare
    from edgefusion.training.train import train as train


def __getattr__(name: str) -> Any:
    """Import the part that holds ``name``; importing the package itself stays instant, and without torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgefusion' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
