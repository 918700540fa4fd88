"""`distprune search --address http://...`: hand a study in as a Ray job, and follow its log."""

from __future__ import annotations

import shlex
import sys

import typer

from distprune.cli.terminal import EXIT_INTERRUPTED, leave, silence_libraries
from distprune.errors import ConfigError
from distprune.search.job import JobServer, StudyJob, check_portable, connect_jobs


def repeat_arguments(
    assignments: list[str] | None,
    storage: str | None,
    num_trials: int | None,
    fresh: bool,
    confirm: int | None,
    verbose: bool,
) -> tuple[str, ...]:
    """Return the options of `distprune search` that the job repeats, as they were given here."""
    words = [word for assignment in assignments or () for word in ("--set", assignment)]
    for name, value in (
        ("--storage", storage),
        ("--num-trials", num_trials),
        ("--confirm", confirm),
    ):
        if value is not None:
            words += [name, str(value)]
    for name, is_given in (("--fresh", fresh), ("--verbose", verbose)):
        if is_given:
            words.append(name)
    return tuple(words)


def submit_search(
    job: StudyJob, address: str, as_json: bool = False, verbose: bool = False
) -> None:
    """Run a study as a job of the cluster at `address`, and print its log until it ends.

    A study that a job works on already is not handed in again; its log is printed. Ctrl-C ends the
    printing alone. The process exits with the code of the job.

    Raises:
        ConfigError: The study names what only this machine has, or the cluster does not take it.
        StudyFailedError: The cluster has not answered for a long while.
    """
    if as_json:
        raise ConfigError(
            "--json: a job prints its log; read what it found afterwards with "
            "`distprune results STORAGE/NAME --json`"
        )
    check_portable(job)
    if not verbose:
        silence_libraries()
    server = connect_jobs(address)
    name = find_or_submit(server, job)
    typer.echo(describe_job(name, address))
    try:
        end = server.follow(name, write)
    except KeyboardInterrupt:
        typer.echo(f"\nleft running. {describe_job(name, address)}", err=True)
        leave(EXIT_INTERRUPTED)
    if end.message:
        typer.echo(f"error: {end.message}", err=True)
    if end.code:
        raise typer.Exit(end.code)


def find_or_submit(server: JobServer, job: StudyJob) -> str:
    """Return the name of the job that works on the study; one is started where there is none.

    Raises:
        ConfigError: One works on the study that is to be set aside.
    """
    running = server.find_running(job)
    if running is None:
        return server.submit(job)
    if "--fresh" in job.arguments:
        raise ConfigError(
            f"--fresh: job {running} works on study {job.study.spec.name!r}; stop it first: "
            f"{stop_command(running, server.address)}"
        )
    typer.echo("The study runs already; nothing is handed in.")
    return running


def describe_job(name: str, address: str) -> str:
    """Return what runs where, and how to watch and to stop it."""
    # Not --fresh: a job works on the study that it would set aside.
    words = [word for word in sys.argv[1:] if word != "--fresh"]
    return (
        f"Job {name} runs on {address}, also without this terminal.\n"
        f"Watch it     distprune {shlex.join(words)}\n"
        f"Stop it      {stop_command(name, address)}"
    )


def stop_command(name: str, address: str) -> str:
    """Return the command that ends a job; what it has finished is kept."""
    return shlex.join(["ray", "job", "stop", "--address", address, name])


def write(text: str) -> None:
    """Print a piece of a log as it is."""
    typer.echo(text, nl=False)
