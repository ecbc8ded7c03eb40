"""Other libraries' talk, kept out of a job's output."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Silence what transformers, DeepSpeed and bitsandbytes say that is no error, and keep transformers from importing
    what is not used here: call it before its models are imported. Calling it again does nothing new."""
    for name in ("DeepSpeed", "bitsandbytes"):
        logger = logging.getLogger(name)
        if _errors_only not in logger.filters:
            logger.addFilter(_errors_only)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
    import transformers
    import transformers.utils

    # SciPy and scikit-learn serve its object detectors and one way of assisted decoding, and cost each process that
    # loads any model three seconds.
    transformers.utils.is_scipy_available = transformers.utils.is_sklearn_available = _left_out
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _left_out() -> bool:
    return False


def _errors_only(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
