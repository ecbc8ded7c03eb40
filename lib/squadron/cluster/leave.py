"""Ends the jobs of a head node in order before the node itself ends.

    python -m squadron.cluster.leave [SECONDS]

Kubernetes runs it before it stops the pod. Each job is sent SIGTERM by Ray, as by `ray job stop`, at which a run of
Squadron writes what it has done and ends. Ray waits for that for `RAY_JOB_STOP_WAIT_TIME_S`.
"""

from __future__ import annotations

import os
import sys
import time

_LOOK_EVERY_S = 0.5
_DASHBOARD = "http://127.0.0.1:8265"


def stop_jobs(address: str, within_s: float) -> list[str]:
    """Ask every job that is waiting or at work at this address of a dashboard to end, and wait until all have. Returns
    the names of those that have not in time."""
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(address)
    names = [
        job.submission_id
        for job in client.list_jobs()
        if job.submission_id is not None and not job.status.is_terminal()
    ]
    for name in names:
        client.stop_job(name)
    deadline = time.monotonic() + within_s
    while names and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
        names = [name for name in names if not client.get_job_status(name).is_terminal()]
    return names


def main() -> int:
    """End the jobs of the Ray cluster whose head this machine is; 1 if one has not ended in time."""
    within_s = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    left = stop_jobs(os.environ.get("RAY_API_SERVER_ADDRESS", _DASHBOARD), within_s)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
