"""reasoning-gym as it is imported in the worker of `scorers`: without what it prints, and without packages that few need."""

import importlib
import os
import sys
import warnings
from types import ModuleType
from typing import Any

# Of packages that reasoning-gym imports at once and few of its generators need. Some have to be compiled, so images go without.
_OPTIONAL = ("pycosat", "cellpylib", "zss", "magiccube", "magiccube.cube", "magiccube.solver.basic.basic_solver")
_failures: list[str] = []


def start() -> None:
    """Imports the library, which is then no part of any limit. It prints while it works: standard output is the program's."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 # until the worker ends
    warnings.simplefilter("ignore")
    stand_in()
    try:
        importlib.import_module("reasoning_gym")
    except ImportError as error:
        _failures.append(str(error))


def stand_in() -> None:
    """Puts something in the place of the packages that are not there, so that the library can be imported."""
    for name in _OPTIONAL:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = _absent(name.partition(".")[0])


def library() -> Any:
    """Returns the module that knows all generators. ImportError if the library could not be imported."""
    if _failures:
        raise ImportError(_failures[0])
    return importlib.import_module("reasoning_gym.factory")


def _absent(package: str) -> ModuleType:
    """Stands in for a package that is not there: it can be imported, and says what is missing where it is used."""

    def use(*args: Any, **kwargs: Any) -> Any:
        raise ImportError(f"needs the package {package}")

    def found(attribute: str) -> Any:
        if attribute.startswith("__"):  # who looks at all modules asks for their file
            raise AttributeError(attribute)
        return use

    module = ModuleType(package)
    module.__path__ = []
    module.__getattr__ = found  # type: ignore[method-assign]
    return module
