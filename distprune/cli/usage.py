"""What stages cost and what reusing them saved, in words."""

from __future__ import annotations

from collections.abc import Mapping

from distprune.cli.durations import format_duration
from distprune.core.byte_size import format_bytes
from distprune.trial.usage import Usage


def describe_usage(usage: Usage) -> str:
    """Return the sums in one line."""
    return (
        f"stages: {usage.num_computed} computed in {format_duration(usage.seconds_computed)} "
        f"({format_bytes(usage.bytes_written)}), {usage.num_reused} reused "
        f"({format_duration(usage.seconds_saved)} saved)"
    )


def describe_hosts(hosts: Mapping[str, int]) -> str:
    """Return how many stages each host has computed, in one line."""
    return "by host: " + ", ".join(f"{host} {count}" for host, count in hosts.items())
