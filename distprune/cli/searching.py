"""What `distprune search` wires together: the study, its display, its tracking and its figures."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import typer
from rich.console import Console

from distprune.cli import confirming
from distprune.cli.progress import StudyProgress
from distprune.cli.results import format_results
from distprune.cli.tables import show_leaderboard
from distprune.cli.terminal import EXIT_INTERRUPTED, leave, silence_libraries
from distprune.cli.tracked_study import locate_tracking
from distprune.core.atomic_file import write_file
from distprune.core.byte_size import format_bytes
from distprune.errors import DistpruneError
from distprune.library.disk_limit import DiskLimit
from distprune.library.history import Event, History, read_trials
from distprune.library.leaderboard import Leaderboard
from distprune.library.mask_reference import list_milestones
from distprune.library.mixing_paths import trace_best_levels, write_paths
from distprune.library.study_folder import StudyFolder
from distprune.library.study_usage import measure_usage
from distprune.report.level_evidence import draw_level
from distprune.report.mixing_figure import draw_mixing
from distprune.report.study_figure import draw_study
from distprune.search.confirm import ConfirmRequest
from distprune.search.study import Session, StudyStart, run_study, study_folder
from distprune.search.study_file import Study
from distprune.tracking.tracker import FINISH_TIMEOUT_S, Tracker, TrackingSummary


class TrackedStudy:
    """Sends a study to MLflow as it happens; implements `distprune.search.study.StudyObserver`."""

    def __init__(self, study: Study, folder: StudyFolder) -> None:
        self._study = study
        self._folder = folder
        self._tracker: Tracker | None = None
        self.start: StudyStart | None = None

    def on_phase(self, text: str) -> None:
        """Nothing to track."""

    def on_change(self, text: str) -> None:
        """Nothing to track."""

    def on_start(self, start: StudyStart) -> None:
        """Begin to track."""
        self.start = start
        tracking = self._study.spec.tracking
        uri, artifacts = locate_tracking(self._folder, tracking.uri)
        draws = tracking.figures == "all"
        self._tracker = Tracker(
            uri=uri,
            artifact_location=artifacts,
            study_name=self._folder.name,
            study_id=start.study_id,
            metric_name=start.context.task.metric,
            draw_level=partial(draw_level, self._folder.open_store()) if draws else None,
        )
        self._tracker.start(self._folder.configuration, self._study.milestones)

    def on_event(self, event: Event) -> None:
        """Send an event."""
        if self._tracker is not None:
            self._tracker.notice(event)

    def finish(self, leaderboard: Leaderboard) -> TrackingSummary | None:
        """Send the results, and wait until everything is sent."""
        if self._tracker is None:
            return None
        folder = self._folder
        artifacts = [
            (folder.leaderboard_json, ""),
            (folder.leaderboard_csv, ""),
            *((path, "figures") for path in sorted(folder.report.glob("*.png"))),
            *((folder.mask(row.milestone), f"masks/{row.milestone:g}") for row in leaderboard.rows),
        ]
        summary = summarise(leaderboard) | summarise_usage(folder)
        return self._tracker.finish(artifacts, summary, FINISH_TIMEOUT_S)

    def fail(self) -> None:
        """Send what there is of a study that failed, and mark its run so."""
        if self._tracker is not None:
            self._tracker.finish([], {}, FINISH_TIMEOUT_S, failed=True)


@dataclass(frozen=True)
class Searched:
    """What a search came to."""

    leaderboard: Leaderboard
    tracking: TrackingSummary | None
    limit: DiskLimit | None


@dataclass(frozen=True)
class SearchCommand:
    """One call of `distprune search`; `seeds` None = its best masks are not confirmed."""

    study: Study
    file: Path
    address: str | None
    fresh: bool
    verbose: bool
    seeds: int | None = None
    ship_code: bool = False

    def execute(self, as_json: bool) -> None:
        """Run the study and print its leaderboard; Ctrl-C ends it cleanly."""
        if not self.verbose:
            silence_libraries()
        console = Console(stderr=True) if as_json else Console()
        folder = study_folder(self.study)
        try:
            done = self._search(folder, console)
            if not as_json:
                show_leaderboard(console, done.leaderboard)
                typer.echo("\n".join(describe_done(self.study, folder, done)))
            confirmed = self._confirm(folder)
        except KeyboardInterrupt:
            typer.echo(self._how_to_continue(), err=True)
            leave(EXIT_INTERRUPTED)
        if as_json:
            typer.echo(format_results(folder, done.leaderboard))
        elif confirmed is not None:
            confirming.show_confirmed(confirmed, folder, console)

    def _search(self, folder: StudyFolder, console: Console) -> Searched:
        """Run the study, shown and tracked, and draw its figures."""
        tracked = TrackedStudy(self.study, folder)
        progress = StudyProgress(console, self.study.spec.num_trials, self.study.milestones)
        limit = limit_store(self.study, folder, console)
        observers = (progress, tracked) if limit is None else (progress, tracked, limit)
        session = Session(
            self.study,
            folder,
            observers,
            self.address,
            self.fresh,
            self.verbose,
            self.ship_code,
        )
        try:
            with progress:
                leaderboard = run_study(session)
                progress.on_phase("Writing figures and tracking")
                write_figures(self.study, folder, tracked.start)
                folder.push()
                summary = tracked.finish(leaderboard)
                if limit is not None:
                    limit.finish()
        except DistpruneError:
            tracked.fail()
            raise
        return Searched(leaderboard, summary, limit)

    def _confirm(self, folder: StudyFolder) -> confirming.Confirmed | None:
        """Confirm the best masks, if that was asked for."""
        if self.seeds is None:
            return None
        request = ConfirmRequest(folder, self.seeds, address=self.address, verbose=self.verbose)
        return confirming.confirm_study(request, Console(stderr=True))

    def _how_to_continue(self) -> str:
        # Not --fresh: it would set aside what is to be gone on with.
        words = [word for word in sys.argv[1:] if word != "--fresh"]
        return (
            "\ninterrupted; nothing that was finished is lost. To go on from here: distprune "
            f"{shlex.join(words)}"
        )


def limit_store(study: Study, folder: StudyFolder, console: Console) -> DiskLimit | None:
    """Return what keeps the store within `store.max_gib`; None where there is no limit."""
    max_gib = study.spec.store.max_gib
    if max_gib is None:
        return None

    def warn(text: str) -> None:
        console.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)

    return DiskLimit(folder.open_store(), folder.place, round(max_gib * 2**30), warn)


def summarise_usage(folder: StudyFolder) -> dict[str, float]:
    """Return what the study's stages cost and what sharing them saved, by metric name."""
    usage = measure_usage(folder)
    return {f"stages/{name.removeprefix('num_')}": value for name, value in asdict(usage).items()}


def summarise(leaderboard: Leaderboard) -> dict[str, float]:
    """Return the study's own metrics: the best at each milestone, dense and floor."""
    summary = {f"dense/{split}": value for split, value in leaderboard.dense.items()}
    for row in leaderboard.rows:
        summary[f"best/{row.milestone:g}/search"] = row.search_metric
        summary[f"best/{row.milestone:g}/retention"] = row.retention
        if row.report_metric is not None:
            summary[f"best/{row.milestone:g}/report"] = row.report_metric
    return summary


def write_figures(study: Study, folder: StudyFolder, start: StudyStart | None) -> None:
    """Trace what λ could have chosen, and draw the study's figures into its report folder."""
    if start is None:
        return
    trials = read_trials(History(folder.history).events())
    metric = start.context.task.metric
    figure = draw_study(trials, study.milestones, start.reference, metric)
    write_file(folder.report / "study.png", figure)
    higher_is_better = start.reference.higher_is_better
    store = folder.open_store()
    levels = trace_best_levels(store, trials, study.milestones, higher_is_better)
    write_paths(folder, levels)
    drawn = draw_mixing(levels)
    if drawn is None:
        (folder.report / "mixing_path.png").unlink(missing_ok=True)
    else:
        write_file(folder.report / "mixing_path.png", drawn)


def describe_done(study: Study, folder: StudyFolder, done: Searched) -> list[str]:
    """Return what there is now, what to do next, and what was removed."""
    lines = [describe_results(folder, done.tracking, study)]
    if done.limit is not None and done.limit.num_evicted:
        lines.append(
            f"Disk         {done.limit.num_evicted} weights were removed "
            f"({format_bytes(done.limit.bytes_evicted)}), to stay within store.max_gib"
        )
    return lines


def describe_results(folder: StudyFolder, summary: TrackingSummary | None, study: Study) -> str:
    """Return what there is now and what to do next."""
    name = folder.reference if folder.uri else _shorten(folder.root)
    lines = [
        f"Masks        {_shorten(folder.masks)}/<sparsity>/mask.safetensors, evidence beside them",
        f"Figures      {_shorten(folder.report)}/study.png",
        f"All trials   distprune ui {name}",
        f"Sure?        distprune confirm {name}",
        f"Use it       distprune export {name}/best@{list_milestones(folder)[-1]:g} FOLDER",
        f"More trials  distprune search FILE --num-trials {2 * study.spec.num_trials}",
    ]
    if summary is not None and summary.url:
        lines.append(f"On MLflow    {summary.url}")
    if summary is not None and summary.unsent:
        lines.append(
            f"warning: {summary.unsent} updates did not reach the tracking server; run the same "
            "command again and they are sent"
        )
    return "\n".join(lines)


def _shorten(path: Path) -> Path:
    working = Path.cwd()
    return path.relative_to(working) if path.is_relative_to(working) else path
