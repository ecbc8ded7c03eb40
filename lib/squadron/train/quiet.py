"""Other libraries' talk, kept out of a job's output."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Silence what transformers, DeepSpeed and bitsandbytes say that is no error. Calling it again does nothing new."""
    for name in ("DeepSpeed", "bitsandbytes"):
        logger = logging.getLogger(name)
        if _errors_only not in logger.filters:
            logger.addFilter(_errors_only)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _errors_only(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
