"""The label names of a classifier, from its config.json, in the order of its outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ftlab.errors import BadInput

UNNAMED = re.compile(r"LABEL_\d+")  # the default names of transformers


def read(config: Mapping[str, Any], name: str) -> list[str]:
    """Read the label names of a classifier from its config.

    id2label is used. If it is missing, or has default names only, label2id is used. A number becomes a text ("0").

    Args:
        config: the content of config.json.
        name: the model's name, for error messages.

    Returns:
        The names in the order of their ids; LABEL_0 and so on if the config has none.

    Raises:
        BadInput: the ids are not 0, 1, 2 and so on, a name is empty or stands twice, the two tables contradict each
            other, or num_labels contradicts them.

    >>> read({"id2label": {"1": "good", "0": "bad"}}, "mine")
    ['bad', 'good']
    """
    names = _by_id(config.get("id2label"), "id2label", name)
    given = config.get("label2id")
    if given is not None and not (isinstance(given, dict) and all(isinstance(n, (int, str)) for n in given.values())):
        raise BadInput(f"the label2id of {name} is {given!r}; expected an object, an id for each name")
    other = _by_id({number: label for label, number in (given or {}).items()}, "label2id", name)
    if len(other) != len(given or {}):
        raise BadInput(f"the label2id of {name} gives several labels one id; expected an id of its own for each")
    if not names or (_unnamed(names) and other and not _unnamed(other)):
        names = other or names
    elif other and not _unnamed(other) and names != other:
        raise BadInput(
            f"the config.json of {name} contradicts itself: its labels are {names} by id2label, and {other} by "
            "label2id; make the two agree, in the order that the model was trained with"
        )
    count = config.get("num_labels")
    if not names:
        return [f"LABEL_{number}" for number in range(count if isinstance(count, int) else 2)]
    if isinstance(count, int) and count != len(names):
        raise BadInput(
            f"the config.json of {name} has num_labels {count} and names {len(names)} labels; correct one of them"
        )
    return names


def _by_id(table: Any, what: str, name: str) -> list[str]:
    """Return the names of a table {id: name}, in the order of the ids."""
    if table is None:
        return []
    if not isinstance(table, dict):
        raise BadInput(f"the {what} of {name} is {table!r}; expected an object, a name for each id")
    found: dict[int, str] = {}
    for key, label in table.items():
        if isinstance(label, bool) or not isinstance(label, (str, int)) or not str(label).strip():
            raise BadInput(f"the {what} of {name} calls label {key} {label!r}; expected a name")
        try:
            found[int(key)] = str(label)
        except (TypeError, ValueError):
            raise BadInput(f"the {what} of {name} has the id {key!r}; expected 0, 1, 2 and so on") from None
    if sorted(found) != list(range(len(table))):
        raise BadInput(
            f"the {what} of {name} has the ids {', '.join(map(str, sorted(found)))}; a model counts its outputs from 0 "
            f"without a gap: write names for 0 to {len(table) - 1} into its config.json, in the order of training"
        )
    names = [found[number] for number in range(len(found))]
    if twice := sorted({label for label in names if names.count(label) > 1}):
        raise BadInput(f"the {what} of {name} calls several labels {twice[0]!r}; give each a name of its own")
    return names


def _unnamed(names: list[str]) -> bool:
    return all(map(UNNAMED.fullmatch, names))
