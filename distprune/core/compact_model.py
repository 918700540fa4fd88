"""A Transformer that has lost heads and neurons, as a transformers model like any other.

This file needs torch and a transformers model, nothing else. distprune copies it into the folder of
each compact model that is saved, beside a file that names the model's class; so the folder loads
where distprune is not installed, with `from_pretrained(folder, trust_remote_code=True)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

RECORD = "distprune"
"""Name of the entry of a model's configuration that says what the model has kept."""

CODE_FILE = "compact_model.py"
MODELING_FILE = "compact_modeling.py"
"""Files that a saved compact model loads with: this one, and the one with its class."""

_CLASSES: dict[Any, Any] = {}
"""Compact classes by the class that each was made of, so that there is one of each."""

Layout = Mapping[str, Any]
"""Where a model's units are: attribute paths, by the names of `distprune.core.families.Family`."""


class Compact:
    """Mixed into a transformers model class: a model whose layers have lost heads and neurons.

    `config.distprune` has the number of heads and of neurons of each layer, and where they are. A
    model without that entry is an ordinary one.
    """

    config: Any

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        record = getattr(config, RECORD, None)
        if record is not None:
            shrink(self, record)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as transformers does; the model then computes the very bits that the saved one did.

        Weights that lie in the file as it is mapped into memory begin at any address, and matrix
        products round differently there. So each is copied to where torch would have put it.
        """
        loaded = super().from_pretrained(*args, **kwargs)  # type: ignore[misc]
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        return loaded

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Save as transformers does, and beside it the code that the folder is loaded with."""
        if kwargs.pop("push_to_hub", False):
            kwargs.setdefault("repo_id", Path(save_directory).name)
            self.save_pretrained(save_directory)
            return self.push_to_hub(**kwargs)  # type: ignore[attr-defined]
        auto_classes = name_auto_classes(self)
        self.config.auto_map = {
            name: f"{Path(MODELING_FILE).stem}.{class_.__name__}"
            for name, class_ in auto_classes.items()
        }
        result = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        folder = Path(save_directory)
        (folder / CODE_FILE).write_text(Path(__file__).read_text())
        (folder / MODELING_FILE).write_text(write_modeling(list(auto_classes.values())))
        return result

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle by the dense class: that of a compact model is made at run time."""
        return _make_empty, (dense_class(type(self)),), self.__dict__


class EmptyAttention(nn.Module):
    """An attention that lost all its heads: it passes on zero features for each token.

    The output projection keeps its bias. Where the family holds that projection inside the
    attention module, it lives here under its own name and is applied here.
    """

    def __init__(self, output_name: str | None, output: nn.Linear) -> None:
        super().__init__()
        self.output_name = output_name
        if output_name is not None:
            self.add_module(output_name, output)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Return [batch, token, 0] features (or the projected bias), and no attention weights."""
        features = hidden_states.new_zeros((*hidden_states.shape[:-1], 0))
        if self.output_name is not None:
            features = self.get_submodule(self.output_name)(features)
        return features, None


def keep_units(
    layer: nn.Module,
    layout: Layout,
    head_size: int,
    heads: Sequence[int],
    neurons: Sequence[int],
) -> None:
    """Remove all other heads and neurons from a Transformer layer, in place.

    Args:
        layer: The layer.
        layout: Where its units are.
        head_size: Width of one head.
        heads: Numbers of the heads to keep, among those that the layer has now, increasing.
        neurons: The same of the neurons.
    """
    _keep_heads(layer, layout, head_size, heads)
    first, second = (_find_linear(layer, layout[name]) for name in ("first", "second"))
    if len(neurons) < second.in_features:
        index = torch.as_tensor(neurons, dtype=torch.long)
        _replace(layer, layout["first"], _slice_linear(first, index, dim=0))
        _replace(layer, layout["second"], _slice_linear(second, index, dim=1))


def shrink(model: Any, record: Mapping[str, Any]) -> None:
    """Give a dense model, in place, the numbers of heads and neurons that `record` has.

    Raises:
        ValueError: The record does not fit the model.
    """
    layout, head_size = record["layout"], record["head_size"]
    layers = list(model.base_model.get_submodule(layout["layers"]))
    if not len(record["heads"]) == len(record["neurons"]) == len(layers):
        raise ValueError(
            f"config.{RECORD}: counts of {len(record['heads'])} layers; the model has {len(layers)}"
        )
    for layer, heads, neurons in zip(layers, record["heads"], record["neurons"], strict=True):
        num_heads = _find_linear(layer, layout["output"]).in_features // head_size
        num_neurons = _find_linear(layer, layout["second"]).in_features
        if not (0 <= heads <= num_heads and 0 <= neurons <= num_neurons):
            raise ValueError(
                f"config.{RECORD}: {heads} heads and {neurons} neurons in a layer that has "
                f"{num_heads} and {num_neurons} when it is dense"
            )
        keep_units(layer, layout, head_size, range(heads), range(neurons))


def record_counts(
    model: Any, layout: Layout, head_size: int, heads: Sequence[int], neurons: Sequence[int]
) -> None:
    """Make a model that has lost units, in place, one of its compact class.

    Args:
        model: The model; its configuration gets the record.
        layout: Where its units are.
        head_size: Width of one head.
        heads: Heads of each layer.
        neurons: Neurons of each layer.
    """
    model.__class__ = compact_class(type(model))
    record = {"heads": list(heads), "neurons": list(neurons), "head_size": head_size}
    setattr(model.config, RECORD, {**record, "layout": dict(layout)})


def compact_class(class_: Any) -> Any:
    """Return the class of compact models of a model class; it has the same name.

    transformers decides by that name what a model can do, and by the module what it supports.
    """
    if issubclass(class_, Compact):
        return class_
    if class_ not in _CLASSES:
        names = {"__module__": class_.__module__, "__doc__": class_.__doc__}
        _CLASSES[class_] = type(class_.__name__, (Compact, class_), names)
    return _CLASSES[class_]


def dense_class(class_: Any) -> Any:
    """Return the model class that a class of compact models was made of; others as they are."""
    if not issubclass(class_, Compact):
        return class_
    order = class_.__mro__
    return order[order.index(Compact) + 1]


def name_auto_classes(model: Any) -> dict[str, Any]:
    """Return the `Auto...` classes that load a model or its base, with the dense class of each."""
    classes = [dense_class(type(model)), dense_class(type(model.base_model))]
    return {_name_auto_class(class_): class_ for class_ in classes}


def write_modeling(classes: Sequence[Any]) -> str:
    """Write the file that defines classes of compact models, for folders that are saved."""
    names = sorted({class_.__name__ for class_ in classes})
    lines = [
        '"""Classes of the compact model in this folder; distprune wrote this file."""',
        "",
        "import transformers",
        "",
        f"from .{Path(CODE_FILE).stem} import Compact",
    ]
    for name in names:
        lines += [
            "",
            "",
            f"class {name}(Compact, transformers.{name}):",
            f'    """A {name} that has lost heads and neurons."""',
        ]
    return "\n".join(lines) + "\n"


def _name_auto_class(class_: Any) -> str:
    _, is_for_task, task = class_.__name__.partition("For")
    return f"AutoModelFor{task}" if is_for_task else "AutoModel"


def _make_empty(dense: Any) -> Any:
    class_ = compact_class(dense)
    return class_.__new__(class_)


def _keep_heads(layer: nn.Module, layout: Layout, head_size: int, heads: Sequence[int]) -> None:
    output = _find_linear(layer, layout["output"])
    if len(heads) == output.in_features // head_size:
        return
    index = torch.as_tensor(
        [head * head_size + feature for head in heads for feature in range(head_size)],
        dtype=torch.long,
    )
    smaller = _slice_linear(output, index, dim=1)
    attention = layer.get_submodule(layout["attention"])
    if len(heads) == 0:
        _replace_attention(layer, layout, smaller)
        return
    for name in ("query", "key", "value"):
        projection = _find_linear(attention, layout[name])
        _replace(attention, layout[name], _slice_linear(projection, index, dim=0))
    _replace(layer, layout["output"], smaller)
    for name in layout["head_count"]:
        setattr(attention, name, len(heads))
    for name in layout["all_heads_width"]:
        setattr(attention, name, len(index))


def _replace_attention(layer: nn.Module, layout: Layout, output: nn.Linear) -> None:
    prefix = f"{layout['attention']}."
    is_inside = layout["output"].startswith(prefix)
    name = layout["output"].removeprefix(prefix) if is_inside else None
    _replace(layer, layout["attention"], EmptyAttention(name, output))
    if not is_inside:
        _replace(layer, layout["output"], output)


def _slice_linear(linear: nn.Linear, index: Tensor, dim: int) -> nn.Linear:
    """Return a linear map with only the rows (dim 0) or columns (dim 1) of `index`."""
    index = index.to(linear.weight.device)
    weight = linear.weight.detach().index_select(dim, index)
    bias = linear.bias
    # Made on the meta device: nothing is initialised, so no random state is spent. Sized 1 x 1 at
    # first: torch warns of an initialisation without elements.
    sliced = nn.Linear(1, 1, bias=bias is not None, device="meta")
    sliced.out_features, sliced.in_features = weight.shape
    sliced.weight = nn.Parameter(weight, requires_grad=linear.weight.requires_grad)
    if bias is not None:
        kept = bias.detach().index_select(0, index) if dim == 0 else bias.detach().clone()
        sliced.bias = nn.Parameter(kept, requires_grad=bias.requires_grad)
    return sliced.train(linear.training)


def _find_linear(module: nn.Module, path: str) -> nn.Linear:
    found = module.get_submodule(path)
    if not isinstance(found, nn.Linear):
        raise ValueError(f"model: {path} is {type(found).__name__}; it must be a linear map")
    return found


def _replace(module: nn.Module, path: str, replacement: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, replacement)
