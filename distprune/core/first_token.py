"""The last layer of a classifier, for its first token only: its head reads no other.

What the other tokens become after the last attention is computed and thrown away otherwise. Logits
and gradients stay as they are; of a model of six layers an eighth of the work goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from distprune.core.anatomy import describe_anatomy


@contextmanager
def only_first_token(classifier: nn.Module) -> Iterator[None]:
    """Let a sequence classifier end with its first token inside the block.

    Families whose modules cannot be cut there (see `Family.attention_end`) stay as they are. The
    last hidden state has one token; a loss that looks at others must not be used with it.

    Args:
        classifier: Dense or compact, of a supported family; `...ForSequenceClassification`.
    """
    anatomy = describe_anatomy(classifier)
    if anatomy.family.attention_end is None:
        yield
        return
    end = anatomy.layers[-1].get_submodule(anatomy.family.attention_end)
    handle = end.register_forward_pre_hook(_cut)
    try:
        yield
    finally:
        handle.remove()


def _cut(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Keep the first token of the heads' output and of the residual stream, [batch, 1, width]."""
    return tuple(features[:, :1] for features in inputs)
