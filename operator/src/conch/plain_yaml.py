"""Writes YAML for people: without anchors and aliases."""

from enum import StrEnum
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  the name is the base class's
        return True


_Dumper.add_multi_representer(StrEnum, lambda dumper, member: dumper.represent_str(member.value))


def dump_yaml(*documents: Any, width: int = 120, sort_keys: bool = False) -> str:
    """Return documents as YAML, with lines of about `width` characters.

    >>> ports = [80]
    >>> print(dump_yaml({"b": ports, "a": ports}), end="")
    b:
    - 80
    a:
    - 80

    A member of an enumeration of texts, such as a reason, is its text.
    """
    return yaml.dump_all(documents, Dumper=_Dumper, width=width, sort_keys=sort_keys)
