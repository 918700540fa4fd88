"""Where each model family keeps its heads and neurons: one declarative entry per model type.

To add a family: one entry here, and its tiny configuration in `tests/model_families.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from distprune.errors import UnsupportedModelError


@dataclass(frozen=True)
class Family:
    """Attribute paths of one model family.

    Attributes:
        layers: From the base model to the list of Transformer layers.
        embeddings: From the base model to its embeddings.
        attention: From a layer to the module that computes the heads.
        query, key, value: From the attention module to its input projections.
        output: From a layer to the attention output projection.
        first, second: From a layer to the two linear maps of the FFN.
        head_count: Attributes of the attention module that hold its number of heads.
        all_heads_width: Attributes of the attention module that hold heads x head size.
        attention_end: From a layer to the module after which each token is by itself; its inputs
            are the heads' output and the residual stream. None = there is no such module.
    """

    layers: str
    embeddings: str
    attention: str
    query: str
    key: str
    value: str
    output: str
    first: str
    second: str
    head_count: tuple[str, ...]
    all_heads_width: tuple[str, ...] = ()
    attention_end: str | None = None


_BERT = Family(
    layers="encoder.layer",
    embeddings="embeddings",
    attention="attention.self",
    query="query",
    key="key",
    value="value",
    output="attention.output.dense",
    first="intermediate.dense",
    second="output.dense",
    head_count=("num_attention_heads",),
    all_heads_width=("all_head_size",),
    attention_end="attention.output",
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "electra": _BERT,
    "distilbert": Family(
        layers="transformer.layer",
        embeddings="embeddings",
        attention="attention",
        query="q_lin",
        key="k_lin",
        value="v_lin",
        output="attention.out_lin",
        first="ffn.lin1",
        second="ffn.lin2",
        head_count=("n_heads",),
    ),
}


def find_family(model_type: str) -> Family:
    """Return the entry of a `config.model_type`.

    Raises:
        UnsupportedModelError: There is none; the message names those that there are.
    """
    try:
        return FAMILIES[model_type]
    except KeyError:
        raise UnsupportedModelError(
            f"model family: {model_type!r} has no anatomy; supported: "
            f"{', '.join(sorted(FAMILIES))}; "
            "choose such a checkpoint, or add an entry to distprune/core/families.py"
        ) from None
