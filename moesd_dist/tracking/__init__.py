"""Where the results of a sweep are kept: MLflow, or memory."""

import os

# Read once, when mlflow is first imported; this runs before any module of the package imports it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
