"""`distprune export`: a compact model as a folder that loads anywhere, checked and certified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from distprune.errors import ConfigError

EXAMPLES = (
    "distprune export studies/quickstart/best@0.5 small",
    "distprune export studies/quickstart/best@0.5 small --onnx",
    "distprune export mask.safetensors small --model ./my-fine-tuned-model",
)
"""Calls that `--help` shows."""


def export(
    mask: str = typer.Argument(
        help="STUDY/best@0.5, or a mask file together with --model.", show_default=False
    ),
    folder: Path = typer.Argument(help="New folder.", show_default=False),
    model: str = typer.Option(
        None,
        "--model",
        help="Dense checkpoint to compact, with a head of its own. Left out, the weights are those "
        "that the study trained.",
    ),
    onnx: bool = typer.Option(
        False, "--onnx", help="Write model.onnx too (needs distprune[onnx])."
    ),
    program: bool = typer.Option(
        False, "--torch-export", help="Write model.pt2 of torch.export too."
    ),
    latency: bool = typer.Option(
        True, "--latency/--no-latency", help="Measure the latency beside the dense model (minutes)."
    ),
) -> None:
    """Write a really smaller model: it loads with distprune, and with transformers alone.

    The folder is read back and compared with the gated dense model before it is handed over; what
    was checked and measured is in its certificate.json.
    """
    from distprune.cli.terminal import silence_libraries
    from distprune.deployment.compact_folder import check_free, save

    silence_libraries()
    check_free(folder)
    if onnx:
        from distprune.deployment.onnx_export import require_onnx

        require_onnx()
    trained = _load(mask, model)
    certificate = save(
        trained.model,
        folder,
        trained.mask,
        trained.tokenizer,
        trained.evidence,
        trained.num_tokens,
        latency=_measure(trained, onnx) if latency else (),
        onnx=onnx,
        program=program,
    )
    typer.echo(describe_certificate(folder, certificate))


def describe_certificate(folder: Path, certificate: Any) -> str:
    """Return what a certificate says, for people."""
    before, after = certificate.dense, certificate.compact
    lines = [f"written to {folder}, and checked:"]
    for one in certificate.agreements:
        lines.append(
            f"  {one.first} = {one.second}: largest difference {one.largest_difference:.1e} "
            f"({one.tolerance:.0e} accepted)"
        )
    lines += [
        f"  parameters {before.parameters:,} -> {after.parameters:,}",
        f"  encoder parameters {before.encoder_parameters:,} -> {after.encoder_parameters:,}",
        f"  encoder MACs at {before.num_tokens:.0f} tokens {before.encoder_macs:.3g} -> "
        f"{after.encoder_macs:.3g}",
        *map(_describe_latency, certificate.latency),
    ]
    return "\n".join(lines)


def _describe_latency(row: Mapping[str, Any]) -> str:
    conditions, speed_up = row["conditions"], row["speed_up"]
    threads = conditions["threads"]
    return (
        f"  {row['runtime']}, {conditions['batch']} x {conditions['length']} tokens, {threads} "
        f"thread{'s' if threads > 1 else ''}: {row['dense']['median'] * 1e3:.1f} -> "
        f"{row['latency']['median'] * 1e3:.1f} ms, {speed_up['median']:.2f} times as fast "
        f"[{speed_up['low']:.2f}, {speed_up['high']:.2f}], {row['realised'] * 100:.0f} % of what "
        "MACs promise"
    )


def _load(reference: str, checkpoint: str | None) -> Any:
    from distprune.deployment.trained_model import compact_checkpoint, load_trained
    from distprune.library.mask_reference import parse_best
    from distprune.loading import load_mask

    if checkpoint is not None:
        return compact_checkpoint(load_mask(reference), checkpoint)
    best = parse_best(reference)
    if best is None:
        raise ConfigError(
            f"export {reference!r}: a mask alone has no weights; name a dense checkpoint with "
            "--model, or a study's best mask as STUDY/best@0.5"
        )
    return load_trained(best)


def _measure(trained: Any, onnx: bool) -> Any:
    """Time the model with one thread and with all cores."""
    from distprune.deployment.export_latency import measure_export
    from distprune.deployment.machine import count_cpus

    threads = sorted({1, count_cpus()})
    return measure_export(trained.model, trained.mask, threads, onnx)
