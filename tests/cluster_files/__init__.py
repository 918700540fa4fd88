"""The files of `cluster/`, checked by what knows their formats; nothing is started."""
