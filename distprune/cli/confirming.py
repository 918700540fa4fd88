"""What `distprune confirm` wires together: the trainings, their display, figures and tracking."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from distprune.cli.confirmation_tables import show_confirmation
from distprune.cli.durations import format_duration
from distprune.cli.terminal import silence_libraries
from distprune.cli.tracked_study import locate_tracking, read_server
from distprune.core.atomic_file import write_file
from distprune.library.confirmation import (
    ARM_NAMES,
    Confirmation,
    locate_confirmation,
    name_points,
)
from distprune.library.forgetting import locate_forgetting
from distprune.library.mixing_paths import format_milestones
from distprune.library.stability import locate_stability
from distprune.library.study_folder import StudyFolder, read_identifier
from distprune.report.confirmation_figure import draw_confirmation
from distprune.report.forgetting_figure import draw_forgetting
from distprune.report.stability_figure import draw_stability
from distprune.search.confirm import ConfirmRequest, run_confirmation
from distprune.search.confirmer import TrainingDone, Trust
from distprune.tracking.later_results import send_later_results
from distprune.tracking.naming import name_confirmed
from distprune.tracking.tracker import FINISH_TIMEOUT_S
from distprune.tracking.trial_run import StudyIdentity


@dataclass(frozen=True)
class Confirmed:
    """What came of a confirmation.

    Attributes:
        trust: What was found.
        is_tracked: Whether the tracking store has it.
    """

    trust: Trust
    is_tracked: bool


class ConfirmProgress:
    """Prints a line for each phase and each training, with the time left at most."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def on_phase(self, text: str) -> None:
        """Say what comes next."""
        elapsed = format_duration(time.monotonic() - self._started)
        self._console.print(f"[{elapsed}] {text}", markup=False, highlight=False, soft_wrap=True)

    def on_training(self, training: TrainingDone) -> None:
        """Say what a training came to."""
        metric = "diverged" if training.metric is None else f"{training.metric:.4f}"
        left = ""
        if training.seconds_left is not None and training.num_done < training.most:
            left = f", at most {format_duration(training.seconds_left)} left"
        self.on_phase(
            f"seed {training.seed}, {ARM_NAMES.get(training.arm, training.arm)} at "
            f"{format_milestones(training.milestones)}: {metric}; {training.num_done} of at most "
            f"{training.most}{left}"
        )


def confirm_study(request: ConfirmRequest, console: Console) -> Confirmed:
    """Confirm a study, draw its figures and send both to its tracked run.

    Args:
        request: What is to be confirmed.
        console: Shows the progress; stderr, so that what is printed stays readable by programs.

    Raises:
        InputError: The request, the study, its data or its storage cannot be used.
        StudyExistsError: A driver is working on the study.
    """
    if not request.verbose:
        silence_libraries()
    progress = ConfirmProgress(console)
    trust = run_confirmation(request, progress)
    progress.on_phase("Writing figures and tracking")
    write_figures(request.folder, trust)
    request.folder.push()
    return Confirmed(trust, track_confirmation(request.folder, trust.confirmation))


def show_confirmed(confirmed: Confirmed, folder: StudyFolder, console: Console) -> None:
    """Print what was found, where it is, and what could not be done."""
    trust = confirmed.trust
    show_confirmation(console, trust.confirmation)
    lines = ["", f"Confirmation {locate_confirmation(folder)}", f"Figures      {folder.report}"]
    if trust.reason is not None:
        lines.append(f"Stability and forgetting were not measured: {trust.reason}")
    if not confirmed.is_tracked:
        lines.append(
            "warning: the study's tracked run does not have this; run the same command again and "
            "it is sent, nothing is trained anew"
        )
    typer.echo("\n".join(lines))


def write_figures(folder: StudyFolder, trust: Trust) -> None:
    """Draw what was found into the study's report; what was not found has no figure."""
    found = {
        "confirmation": draw_confirmation(trust.confirmation),
        "stability": None if trust.stability is None else draw_stability(trust.stability),
        "forgetting": None if trust.forgetting is None else draw_forgetting([trust.forgetting]),
    }
    for name, figure in found.items():
        path = folder.report / f"{name}.png"
        if figure is None:
            path.unlink(missing_ok=True)
        else:
            write_file(path, figure)


def track_confirmation(folder: StudyFolder, confirmation: Confirmation) -> bool:
    """Send a confirmation to the study's tracked run; say whether it is there."""
    uri, _ = locate_tracking(folder, read_server(folder))
    summary = send_later_results(
        uri,
        StudyIdentity(folder.name, read_identifier(folder), confirmation.metric),
        {
            name_confirmed(milestone, arm, what): value
            for milestone, arm, what, value in name_points(confirmation)
        },
        step=confirmation.most_seeds,
        artifacts=list_artifacts(folder),
        timeout_s=FINISH_TIMEOUT_S,
    )
    return summary.unsent == 0


def list_artifacts(folder: StudyFolder) -> list[tuple[Path, str]]:
    """Return the files of a confirmation, each with its artifact folder."""
    names = ("confirmation", "stability", "forgetting")
    candidates = [
        (locate_confirmation(folder), ""),
        (locate_stability(folder), "report"),
        (locate_forgetting(folder), "report"),
        *((folder.report / f"{name}.png", "figures") for name in names),
    ]
    return [(path, place) for path, place in candidates if path.exists()]
