"""Check that the documentation is whole.

    python scripts/docs_check.py

Every public name has a docstring; every command, event type and error is named in
docs/reference; no relative link is dead; the changelog starts with the version of the package.
What does not exist yet (a module, the folder docs/reference) is told, and is no error.
"""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LINK = re.compile(
    r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*<?([^\s>]+)", re.MULTILINE
)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|#", re.IGNORECASE)
VERSION = re.compile(r"^## \[?v?(\d[^\]\s]*)", re.MULTILINE)


def main() -> int:
    """Print every fault; fail if there is one."""
    faults = [*docstrings(), *reference(), *links(), *changelog()]
    for fault in faults:
        print(f"error: {fault}")
    print(f"docs: {len(faults)} faults")
    return 1 if faults else 0


def docstrings() -> Iterator[str]:
    """The public classes and functions without a docstring of their own."""
    package = module("tertulia")
    for name in getattr(package, "__all__", ()):
        if not hasattr(package, name):
            yield f"tertulia.__all__ names {name!r}, which does not exist"
        elif undocumented(getattr(package, name)):
            yield f"tertulia.{name} has no docstring"


def undocumented(public: Any) -> bool:
    """Whether it is a class or function without words; constants are told by their values."""
    words = getattr(public, "__doc__", None)
    if isinstance(public, type) and words and words.startswith(f"{public.__name__}("):
        return True  # made by dataclasses
    return callable(public) and not (words and words.strip())


def reference() -> Iterator[str]:
    """The commands, event types and errors that no page of the reference names."""
    pages = sorted((ROOT / "docs" / "reference").rglob("*.md"))
    if not pages:
        print("docs: docs/reference does not exist yet, so nothing is looked up in it")
        return
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    wanted = [("command", name) for name in commands()]
    wanted += [
        ("event type", name) for name in getattr(module("tertulia.events"), "EVENT_TYPES", ())
    ]
    wanted += [("error", name) for name in errors()]
    for kind, name in wanted:
        if not re.search(rf"(?<![\w.]){re.escape(name)}(?![\w-]|\.\w)", text):
            yield f"docs/reference names no {kind} {name!r}"


def commands() -> Iterator[str]:
    """Every command that is not hidden, as `tertulia name`."""
    for value in vars(module("tertulia.cli.main") or ModuleType("none")).values():
        if isinstance(value, click.Group):
            yield from inside(value, "tertulia")
            return


def inside(group: click.Group, prefix: str) -> Iterator[str]:
    """The commands of a group and of the groups in it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from inside(command, f"{prefix} {name}")
        elif command and not command.hidden:
            yield f"{prefix} {name}"


def errors() -> Iterator[str]:
    """Every public exception of the error tree."""
    for name, value in vars(module("tertulia.errors") or ModuleType("none")).items():
        own = isinstance(value, type) and value.__module__ == "tertulia.errors"
        if own and issubclass(value, BaseException) and not name.startswith("_"):
            yield name


def links() -> Iterator[str]:
    """The relative links of README and docs that lead nowhere."""
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]:
        for found in LINK.finditer(CODE.sub("", page.read_text(encoding="utf-8"))):
            target = found[1] or found[2]
            if ELSEWHERE.match(target):
                continue
            if not (page.parent / target.partition("#")[0]).exists():
                yield f"{page.relative_to(ROOT)}: the link to {target} is dead"


def changelog() -> Iterator[str]:
    """Whether the newest entry of the changelog is the version of the package."""
    version = getattr(module("tertulia"), "__version__", None)
    newest = VERSION.search((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    if version and (newest is None or newest[1] != version):
        entry = newest[1] if newest else "nothing"
        yield f"CHANGELOG.md starts with {entry}, but the version is {version}"


def module(name: str) -> ModuleType | None:
    """The module, or None if it is not written yet; one that is broken raises."""
    file = ROOT / "src" / Path(*name.split("."))
    if not (file / "__init__.py").is_file() and not file.with_suffix(".py").is_file():
        print(f"docs: {name} does not exist yet")
        return None
    return importlib.import_module(name)


if __name__ == "__main__":
    raise SystemExit(main())
