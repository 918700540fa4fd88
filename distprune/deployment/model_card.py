"""The model card of a compact model: what it is, what speaks for it, how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distprune.core.mask import Mask
from distprune.core.units import UnitKind
from distprune.deployment.certificate import Certificate


def write_card(
    model: Any, mask: Mask, evidence: Mapping[str, Any], certificate: Certificate
) -> str:
    """Return the README.md of a compact model's folder."""
    checkpoint = evidence.get("checkpoint", {}).get("name", "a dense checkpoint")
    parts = [
        "---\nlibrary_name: transformers\ntags: [distprune, pruning]\n---",
        f"# {checkpoint}, compact",
        f"{describe_mask(mask)} of {checkpoint} were removed with distprune. The model is smaller, "
        "not masked.",
        "```python\n"
        f"from transformers import AutoModelFor{type(model).__name__.partition('For')[2]}\n\n"
        f"model = AutoModelFor{type(model).__name__.partition('For')[2]}.from_pretrained(\n"
        '    "FOLDER", trust_remote_code=True)  # or: distprune.load("FOLDER")\n'
        "```",
        _describe_evidence(evidence),
        _describe_certificate(certificate),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_mask(mask: Mask) -> str:
    """Return what a mask removes in words."""
    return " and ".join(
        f"{mask[kind].size - mask.num_kept(kind)} of {mask[kind].size} {kind}s" for kind in UnitKind
    )


def _describe_evidence(evidence: Mapping[str, Any]) -> str:
    metrics = evidence.get("metrics")
    if not metrics:
        return ""
    lines = [
        "## Evidence",
        "",
        f"| {metrics['name']} | search split | report split |",
        "|---|---|---|",
        f"| dense | {_number(metrics['dense'].get('search'))} "
        f"| {_number(metrics['dense'].get('report'))} |",
        f"| this mask | {_number(metrics.get('search'))} | {_number(metrics.get('report'))} |",
        f"| constant prediction | {_number(metrics['constant_predictor'].get('search'))} "
        f"| {_number(metrics['constant_predictor'].get('report'))} |",
        "",
        _describe_origin(evidence),
    ]
    return "\n".join(lines)


def _describe_origin(evidence: Mapping[str, Any]) -> str:
    """Return where a mask comes from, as far as that is known."""
    sentences = []
    if evidence.get("study") is not None:
        sentences.append(
            f"Found by study {evidence['study']}, trial {evidence.get('trial')}, level "
            f"{evidence.get('level')}; chosen on the search split."
        )
    settings = ", ".join(
        f"{name}={value}" for name, value in (evidence.get("parameters") or {}).items()
    )
    if settings:
        sentences.append(f"Settings: {settings}.")
    return " ".join([*sentences, "All that is known: evidence.json."])


def _describe_certificate(certificate: Certificate) -> str:
    before, after = certificate.dense, certificate.compact
    lines = [
        "## Certificate",
        "",
        "| | dense | compact |",
        "|---|---|---|",
        f"| parameters | {before.parameters:,} | {after.parameters:,} |",
        f"| encoder parameters | {before.encoder_parameters:,} | {after.encoder_parameters:,} |",
        f"| encoder MACs, {before.num_tokens:.0f} tokens | {before.encoder_macs:.3g} "
        f"| {after.encoder_macs:.3g} |",
        "",
        "Largest differences of logits: "
        + "; ".join(
            f"{one.first} and {one.second} {one.largest_difference:.1e}"
            for one in certificate.agreements
        )
        + ". Measured latency, machine and versions: certificate.json.",
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
