"""The whole suite, in two processes side by side: tests that start Ray mostly wait, and the others compute meanwhile.

python tests/suite.py [WORDS FOR PYTEST]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

PARTS = ("ray", "rest")


def main(words: list[str]) -> int:
    """Run both parts, print what the second said once the first has ended, and give the worse of their statuses."""
    line = [sys.executable, "-m", "pytest", "-q", "--durations=20", "-p", "no:cacheprovider", *words]
    with tempfile.TemporaryFile() as said:
        rest = subprocess.Popen([*line, "--part", PARTS[1]], stdout=said, stderr=subprocess.STDOUT)
        try:
            ray = subprocess.run([*line, "--part", PARTS[0]], check=False).returncode
            other = rest.wait()
        finally:
            rest.kill()
        said.seek(0)
        sys.stdout.buffer.write(b"\n== without Ray\n" + said.read())
        sys.stdout.flush()
    return max(abs(ray), abs(other))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
