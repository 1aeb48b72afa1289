"""`python -m ftlab.course.refresh [LESSON ...]`: run lessons and store their outputs in notebooks/."""

from __future__ import annotations

import sys

from ftlab.course.runner import refresh
from ftlab.errors import CourseError
from ftlab.progress import quiet

if __name__ == "__main__":
    quiet()
    try:
        for result in refresh(sys.argv[1:]):
            print(f"{result.lesson}: {result.seconds:.0f} s, {result.headline}")
    except CourseError as problem:
        print(f"ftlab: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
