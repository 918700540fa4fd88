"""`distprune confirm`: are a study's best masks better than controls of the same size?"""

from __future__ import annotations

import json
import shlex
import sys

import typer
from rich.console import Console

from distprune.cli.options import AddressOption, JsonOption, StudyArgument, VerboseOption
from distprune.errors import ConfigError
from distprune.library.control_trials import Control
from distprune.library.study_folder import find_study

EXAMPLES = (
    "distprune confirm studies/quickstart",
    "distprune confirm studies/quickstart --seeds 3 --milestone 0.5",
    "distprune confirm studies/quickstart --controls random,lambda_0",
)
"""Calls that `--help` shows."""


def confirm(
    study: str = StudyArgument,
    seeds: int = typer.Option(5, "--seeds", metavar="K", help="Most seeds of a comparison, >= 2."),
    controls: list[str] = typer.Option(
        None,
        "--controls",
        metavar="NAMES",
        help=f"Of {', '.join(Control)}; several with commas. All without it.",
        show_default=False,
    ),
    milestones: list[float] = typer.Option(
        None,
        "--milestone",
        help="Sparsity whose best mask is confirmed, for instance 0.5. Can be given several times; "
        "without it all of the study.",
        show_default=False,
    ),
    address: str = AddressOption,
    as_json: bool = JsonOption,
    verbose: bool = VerboseOption,
) -> None:
    """Train the best masks anew with fresh seeds, beside controls of the same size.

    Every mask is trained once, by its trial's own recipe and from its rewinding point (the dense
    fine-tuned weights where the trial continued from level to level), with seeds that the study has
    not used. A seed has a dense fine-tuning, head, data order and dropout of its own. All are
    measured on the report split.

    Controls: random masks and masks of removed units (inverted), drawn for each seed; and what the
    same trial would have found with the fine-tuned importance alone (lambda_0), the pre-trained
    alone (lambda_1) or magnitudes. The dense model is always there.

    Intervals are paired bootstraps over seeds and examples. Comparisons are looked at after the
    third and each further seed; one that is settled trains no more. The looks share an error of 5
    %. Started again after a kill, it goes on where it was.
    """
    folder = find_study(study)
    chosen = parse_controls(controls)
    from distprune.cli.confirming import confirm_study, show_confirmed
    from distprune.cli.terminal import EXIT_INTERRUPTED, leave
    from distprune.search.confirm import ConfirmRequest

    request = ConfirmRequest(folder, seeds, chosen, tuple(milestones or ()), address, verbose)
    try:
        confirmed = confirm_study(request, Console(stderr=True))
    except KeyboardInterrupt:
        typer.echo(
            "\ninterrupted; nothing that was trained is lost. To go on from here: distprune "
            f"{shlex.join(sys.argv[1:])}",
            err=True,
        )
        leave(EXIT_INTERRUPTED)
    if as_json:
        values = confirmed.trust.confirmation.to_values()
        typer.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    show_confirmed(confirmed, folder, Console())


def parse_controls(names: list[str] | None) -> tuple[Control, ...]:
    """Return the named controls, in the order of `Control`; all of them where none is named.

    Raises:
        ConfigError: A name is unknown.
    """
    given = [name.strip() for text in names or () for name in text.split(",")]
    for name in given:
        if name not in list(Control):
            raise ConfigError(f"--controls: {name!r} is unknown; choose of {', '.join(Control)}")
    return tuple(control for control in Control if not given or control in given)
