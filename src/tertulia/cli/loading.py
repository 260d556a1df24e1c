"""What stands in a file or module of the user, by FILE[:NAME]."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from tertulia.errors import UsageError


def loaded(target: str, usual: tuple[str, ...]) -> Any:
    """What FILE[:NAME] names; without NAME the first of the usual names that is there.

    Raises UsageError.
    """
    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    module = module_of(place)
    if name:
        if not hasattr(module, name):
            raise UsageError(f"{place} has no {name!r}; say another NAME in {place}:NAME")
        return getattr(module, name)
    for each in usual:
        if hasattr(module, each):
            return getattr(module, each)
    names = " or ".join(filter(None, (", ".join(usual[:-1]), usual[-1])))
    raise UsageError(f"{place} has no {names}; say which in {place}:NAME")


def module_of(place: str) -> ModuleType:
    """A module by the path of its file, or by its name. Raises UsageError."""
    path = Path(place)
    if path.suffix != ".py" and not path.exists():
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name and place.startswith(error.name):
                raise UsageError(f"there is no file or module {place!r}") from error
            raise
    if not path.is_file():
        raise UsageError(f"there is no file {place!r}")
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{place!r} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
