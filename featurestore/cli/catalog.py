"""Finding the declarations to apply: which module and attribute, and importing it.

The target is `MODULE[:ATTRIBUTE]`; without one, the table of the nearest `pyproject.toml` that has it says which:

    [tool.featurestore]
    catalog = "my_features.flights:catalog"
"""

import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from traceback import extract_tb
from types import ModuleType

from featurestore.declaration import Catalog
from featurestore.errors import FeatureStoreError, InvalidInput

ATTRIBUTE = "catalog"


def load_catalog(target: str | None, folder: Path) -> Catalog:
    """Import the declarations.

    The project's folder (that of its `pyproject.toml`, else `folder`) is put on the import path.

    Args:
        target: `MODULE[:ATTRIBUTE]`; None for the one that `pyproject.toml` names. The attribute is `catalog` by default.
        folder: Where the search for `pyproject.toml` begins, upwards.

    Raises:
        InvalidInput: nothing names a catalogue, or what is named is not there or none.
        DeclarationError: a declaration contradicts itself or another one.
    """
    found = next(_configured(folder), None)
    if target is None and found is None:
        raise InvalidInput(
            f"No catalogue was named, and no pyproject.toml in {folder} or above has one. Name it, as in "
            '`featurestore apply my_features:catalog`, or put catalog = "my_features:catalog" under [tool.featurestore].'
        )
    project, configured = found or (folder, "")
    sys.path.insert(0, str(project))
    name, _, attribute = (target or configured).partition(":")
    return _catalog_in(_module(name, project), attribute or ATTRIBUTE)


def _configured(folder: Path) -> Iterator[tuple[Path, str]]:
    """Folders from here upwards whose `pyproject.toml` names a catalogue, with the name."""
    for parent in (folder, *folder.parents):
        file = parent / "pyproject.toml"
        if not file.is_file():
            continue
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("featurestore", {})
        except ValueError as error:
            raise InvalidInput(f"{file} cannot be read: {error}. Mend it, or run the command elsewhere.") from error
        if "catalog" in table:
            yield parent, _checked(table["catalog"], file)


def _checked(named: object, file: Path) -> str:
    if not isinstance(named, str) or not named:
        raise InvalidInput(
            f'catalog under [tool.featurestore] in {file} is {named!r}. Write catalog = "module:attribute".'
        )
    return named


def _module(name: str, project: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except FeatureStoreError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise InvalidInput(
                f"Module {name!r} imports {error.name!r}, which is not installed. Install it, and apply again."
            ) from error
        raise InvalidInput(
            f"There is no module {name!r} ({error.name!r} is not found from {project}). Give it as in an import: package.module."
        ) from error
    except SyntaxError as error:
        raise InvalidInput(
            f"Module {name!r} is not Python: {error.msg} ({error.filename}, line {error.lineno}). Correct it, and apply again."
        ) from error
    except Exception as error:  # whatever the user's module raises
        if not name or name.startswith("."):
            raise InvalidInput(
                f"{name!r} names no module. Give it as in an import: package.module[:attribute]."
            ) from error
        last = extract_tb(error.__traceback__)[-1]
        raise InvalidInput(
            f"Module {name!r} fails as it is imported: {type(error).__name__}: {error} ({last.filename}, line {last.lineno}). "
            f"Correct it, and apply again; python -c 'import {name}' shows how it got there."
        ) from error


def _catalog_in(module: ModuleType, attribute: str) -> Catalog:
    found = getattr(module, attribute, None)
    if isinstance(found, Catalog):
        return found
    there = [f"{module.__name__}:{name}" for name, value in vars(module).items() if isinstance(value, Catalog)]
    what = f"is a {type(found).__name__}, not a Catalog" if hasattr(module, attribute) else "is not there"
    raise InvalidInput(f"{module.__name__}:{attribute} {what}. Catalogues of that module: {there or 'none'}.")
