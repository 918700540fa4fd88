"""Figures of levels and studies; the only place that knows matplotlib."""
