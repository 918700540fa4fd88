"""A study's history as MLflow runs; the only place that knows MLflow."""
