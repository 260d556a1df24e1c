"""Check the budgets of size: a file 300 lines, hard stop 500; a function 25 lines, hard stop 50.

    python scripts/budgets.py [FOLDER...]

What is over the hard stop is an error. What is over the budget is told, and is no error.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FILE_BUDGET, FILE_STOP = 300, 500
FUNCTION_BUDGET, FUNCTION_STOP = 25, 50


class Size(NamedTuple):
    """How long one file or function is, and how long it may be."""

    place: str
    lines: int
    budget: int
    stop: int


def main(folders: list[str]) -> int:
    """Print what is over, the worst last; fail if something is over a hard stop."""
    sizes = [size for folder in folders or ["src"] for size in measure(ROOT / folder)]
    over = sorted((size for size in sizes if size.lines > size.budget), key=lambda size: size.lines)
    stopped = [size for size in over if size.lines > size.stop]
    for size in over:
        if size in stopped:
            print(f"error: {size.place} has {size.lines} lines, the hard stop is {size.stop}")
        else:
            print(f"warning: {size.place} has {size.lines} lines, the budget is {size.budget}")
    print(f"budgets: {len(stopped)} over a hard stop, {len(over) - len(stopped)} over budget")
    return 1 if stopped else 0


def measure(folder: Path) -> Iterator[Size]:
    """The sizes of every Python file below a folder and of every function in it."""
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = str(path.relative_to(ROOT))
        yield Size(name, text.count("\n"), FILE_BUDGET, FILE_STOP)
        for node in ast.walk(ast.parse(text, name)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                place = f"{name}:{node.lineno} {node.name}"
                yield Size(place, lines, FUNCTION_BUDGET, FUNCTION_STOP)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
