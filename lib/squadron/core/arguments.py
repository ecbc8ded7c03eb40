"""Arguments that several commands have."""

from __future__ import annotations

import argparse


def add_job_arguments(
    parser: argparse.ArgumentParser,
    *,
    needed: bool = True,
    address: str = "Ray cluster to connect to, such as auto (default: this machine)",
) -> None:
    """Which job a command is about, with which settings, in which folder and on what hardware. `needed`: a command
    without a job is none; `address` says what --address names."""
    job = "a job's name, as `squadron ls` lists them, or the path of your own"
    parser.add_argument("job", help=job, nargs=None if needed else "?")
    parser.add_argument(
        "settings",
        nargs="*",
        help="first a configuration (a .yaml file or a shipped name, default demo), then key.path=value …",
    )
    parser.add_argument("--run", metavar="FOLDER", help="run folder or fsspec URL (default: runs/JOB-CONFIGURATION)")
    parser.add_argument("--address", help=address)
    parser.add_argument(
        "--profile", default="auto", help="hardware, and the share of one worker: auto, laptop, h200, 8xh100, 2x8xh100"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="ask for exactly N workers, and refuse to start with fewer"
    )
    wait = "seconds to wait for room, for machines that the cluster adds or for other work to end (default: 900)"
    parser.add_argument("--wait-s", type=float, metavar="S", help=wait)
    parser.add_argument(
        "--track",
        default="tensorboard",
        help="comma-separated: tensorboard, wandb (offline unless WANDB_MODE says otherwise), none",
    )
