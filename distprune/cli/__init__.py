"""The command line: it reads settings, wires the layers together and prints."""
