"""One trial in this process, without Ray: its settings, its stages, its levels, what it reports."""
