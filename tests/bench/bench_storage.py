"""Every job on an S3-compatible store that loses requests: does it report what it does on a disk?

python tests/bench/bench_storage.py [JOB …] [SHARE]

Each job's smoke setting runs once on this machine's disk, and once with `--run s3://runs/JOB` against a server on
loopback, behind a proxy that loses SHARE of the requests (0.05): it ends connections before or after the server has
served them, answers 500 or 503, cuts answers short. What both have reported is compared. Bar: no difference, in all
seven jobs and in a training by a group of workers.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.kills import Job, differences
from tests.object_store import BUCKET, ObjectStore, object_store

PLACE = Path("runs/bench-storage").resolve()
JOBS = {
    "coordination": ("coordination", []),
    "crowdselect": ("crowdselect", []),
    "flame": ("flame", []),
    "finetune": ("finetune", []),
    "finetune-group": ("finetune", ["--workers", "2"]),
    "toolret": ("toolret", []),
    "actor_reasoner": ("actor_reasoner", []),
    "self_rewarding": ("self_rewarding", []),
}


def compare(name: str, share: float) -> bool:
    """Run a job in both places, and say what differs."""
    place = PLACE / name
    shutil.rmtree(place, ignore_errors=True)
    job = Job.of(JOBS[name][0], place, JOBS[name][1])
    started = time.monotonic()
    code, said = job.run(job.whole)
    assert code == 0, said
    disk_s, started = time.monotonic() - started, time.monotonic()
    with object_store(place, share, seed=len(name)) as store:
        code, said = job.run(place / "store", url=f"s3://{BUCKET}/{name}", environment=store.environment)
        store_s, lost = time.monotonic() - started, store.lost()
        if code == 0:
            download(store, name, place / "store")
    found = differences(job.whole, place / "store") if code == 0 else [f"status {code}: {said[-3000:]}"]
    kinds = dict(Counter(line.split()[0] for line in lost))
    verdict = "equal" if not found else "\n  ".join(["DIFFERENT", *found[:8]])
    print(
        f"{name}: {verdict}; {disk_s:.0f} s on disk, {store_s:.0f} s on the store, {len(lost)} lost {kinds}", flush=True
    )
    return not found


def download(store: ObjectStore, name: str, into: Path) -> None:
    """Copy a run from the store, past the proxy."""
    import s3fs

    options = {"endpoint_url": store.direct["AWS_ENDPOINT_URL"]}
    key, secret = store.direct["AWS_ACCESS_KEY_ID"], store.direct["AWS_SECRET_ACCESS_KEY"]
    filesystem = s3fs.S3FileSystem(key=key, secret=secret, client_kwargs=options, skip_instance_cache=True)
    filesystem.get(f"{BUCKET}/{name}/", f"{into}/", recursive=True)


if __name__ == "__main__":
    words = sys.argv[1:]
    shares = [float(word) for word in words if word.replace(".", "").isdecimal()]
    chosen = [word for word in words if word in JOBS] or list(JOBS)
    os.environ["SQUADRON_CACHE"] = str(PLACE / "cache")
    equal = [compare(name, shares[0] if shares else 0.05) for name in chosen]
    print(f"{sum(equal)} of {len(equal)} equal")
    sys.exit(0 if all(equal) else 1)
