"""The chaos test: studies killed, cut off and damaged at any moment, beside undisturbed twins."""
