"""`distprune mask`: look at masks, compare them, combine them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer

from distprune.cli.options import JsonOption
from distprune.core.atomic_file import write_file
from distprune.core.mask import Mask
from distprune.core.mask_algebra import intersect, measure_overlap, subtract, unite
from distprune.core.units import UnitKind
from distprune.errors import ConfigError

EXAMPLES = (
    "distprune mask show studies/quickstart/best@0.5",
    "distprune mask diff first.safetensors second.safetensors --png difference.png",
    "distprune mask merge --how intersection a.safetensors b.safetensors --output both.safetensors",
)
"""Calls that `--help` shows."""

BAR = 24
"""Characters of a bar of neurons."""

REFERENCE_HELP = "A mask file, STUDY/best@0.5, or runs:/... and models:/... of MLflow."
PngOption = typer.Option(None, "--png", metavar="FILE", help="Draw it as PNG too.")


class Combination(StrEnum):
    """How masks are combined."""

    UNION = "union"
    INTERSECTION = "intersection"
    DIFFERENCE = "difference"


COMBINE: dict[Combination, Callable[[Sequence[Mask]], Mask]] = {
    Combination.UNION: unite,
    Combination.INTERSECTION: intersect,
    Combination.DIFFERENCE: lambda masks: subtract(masks[0], unite(masks[1:])),
}


def show(
    mask: str = typer.Argument(help=REFERENCE_HELP, show_default=False),
    png: Path = PngOption,
    as_json: bool = JsonOption,
) -> None:
    """Print which heads a mask keeps, how many neurons of each layer, and what is known of it."""
    loaded = _load(mask)
    if png is not None:
        from distprune.report.mask_figure import draw_mask

        write_file(png, draw_mask(loaded, mask))
    typer.echo(json.dumps(describe(loaded), indent=2) if as_json else format_mask(loaded))


def diff(
    first: str = typer.Argument(help=REFERENCE_HELP, show_default=False),
    second: str = typer.Argument(help="The other mask.", show_default=False),
    png: Path = PngOption,
    as_json: bool = JsonOption,
) -> None:
    """Print where two masks of one architecture keep different units."""
    masks = _load(first), _load(second)
    overlap = measure_overlap(*masks)
    if png is not None:
        from distprune.report.mask_figure import draw_difference

        write_file(png, draw_difference(*masks, names=(first, second)))
    if as_json:
        values = {str(kind): values.tolist() for kind, values in overlap.items()}
        typer.echo(json.dumps({"jaccard_per_layer": values}, indent=2))
        return
    typer.echo(format_difference(*masks))


def merge(
    masks: list[str] = typer.Argument(help="Masks of one architecture.", show_default=False),
    how: Combination = typer.Option(
        ...,
        "--how",
        help="union: what any keeps; intersection: what all keep; difference: what the first keeps "
        "and no other.",
    ),
    output: Path = typer.Option(..., "--output", help="Where to write the new mask."),
) -> None:
    """Combine masks into a new one."""
    if len(masks) < 2:
        raise ConfigError(f"masks: {len(masks)}; two at least are combined; name another")
    loaded = [_load(reference) for reference in masks]
    metadata: dict[str, Any] = {"combination": str(how), "masks": masks}
    shared = ("checkpoint", "shape")
    for name in shared:
        values = [mask.metadata.get(name) for mask in loaded]
        if values[0] is not None and all(value == values[0] for value in values):
            metadata[name] = values[0]
    combined = COMBINE[how](loaded).with_metadata(metadata)
    combined.save(output)
    typer.echo(f"{format_sparsities(combined)}; written to {output}")


def describe(mask: Mask) -> dict[str, Any]:
    """Return what there is to know about a mask as JSON values."""
    return {
        "kept_per_layer": {str(kind): mask[kind].sum(axis=1).tolist() for kind in UnitKind},
        "units_per_layer": {str(kind): mask[kind].shape[1] for kind in UnitKind},
        "sparsity": {str(kind): mask.sparsity(kind) for kind in UnitKind},
        "heads": mask[UnitKind.HEAD].astype(int).tolist(),
        "digest": mask.digest,
        "metadata": dict(mask.metadata),
    }


def format_mask(mask: Mask) -> str:
    """Return a mask as text: a line a layer, heads one by one, neurons as a bar."""
    heads, neurons = mask[UnitKind.HEAD], mask[UnitKind.NEURON]
    lines = [f"layer  heads ({'#'} kept, {'.'} removed)".ljust(7 + heads.shape[1] + 8) + "neurons"]
    width = max(heads.shape[1], 23)
    for layer in range(mask.num_layers):
        row = "".join("#" if kept else "." for kept in heads[layer])
        share = neurons[layer].mean()
        bar = "#" * round(share * BAR)
        lines.append(
            f"{layer:5d}  {row:{width}s}  {heads[layer].sum():3d}  {bar:.<{BAR}s}  "
            f"{neurons[layer].sum()} of {neurons.shape[1]}"
        )
    lines.append(format_sparsities(mask))
    lines += _format_metadata(mask)
    return "\n".join(lines)


def format_difference(first: Mask, second: Mask) -> str:
    """Return what two masks keep as text: a line a layer."""
    overlap = measure_overlap(first, second)
    lines = ["layer  heads (= both, 1 or 2 one of them, . neither)  same heads  same neurons"]
    for layer in range(first.num_layers):
        row = "".join(
            ".12="[a + 2 * b]
            for a, b in zip(
                first[UnitKind.HEAD][layer].tolist(),
                second[UnitKind.HEAD][layer].tolist(),
                strict=True,
            )
        )
        head, neuron = (overlap[kind][layer] for kind in UnitKind)
        lines.append(f"{layer:5d}  {row:45s}  {head:10.2f}  {neuron:12.2f}")
    lines.append(
        "same heads and neurons: Jaccard index, kept by both / kept by either. First mask: "
        f"{format_sparsities(first)}. Second: {format_sparsities(second)}."
    )
    return "\n".join(lines)


def format_sparsities(mask: Mask) -> str:
    """Return how much a mask removes, in words."""
    return ", ".join(
        f"{mask.num_kept(kind)} of {mask[kind].size} {kind}s kept "
        f"({mask.sparsity(kind) * 100:.3g} % removed)"
        for kind in UnitKind
    )


def _format_metadata(mask: Mask) -> list[str]:
    lines = []
    known = mask.metadata
    if "checkpoint" in known:
        lines.append(f"checkpoint   {known['checkpoint'].get('name')}")
    if "study" in known:
        lines.append(
            f"found by     study {known['study']}, trial {known.get('trial')}, level "
            f"{known.get('level')}"
        )
    metrics = known.get("metrics")
    if metrics:
        lines.append(
            f"{metrics['name']:12s} search {metrics['search']:.4f}, dense "
            f"{metrics['dense']['search']:.4f}, retention {metrics['retention']:.3f}"
        )
    return lines


def _load(reference: str) -> Mask:
    from distprune.loading import load_mask

    return load_mask(reference)


VERBS = ((show, EXAMPLES[:1]), (diff, EXAMPLES[1:2]), (merge, EXAMPLES[2:]))
"""Verbs of the group, each with its examples."""
