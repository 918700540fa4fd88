"""The search over trials: its file, its space, Optuna's proposals, Ray's trials and stages."""
