"""Label selectors as the API server's clients write them: `app=a,tier in (x, y),!old`.

The grammar is apimachinery's `labels.Parse`; a missing label is unlike every value, as there.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

Selector = Callable[[Mapping[str, str]], bool]

# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_NAME: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?(?![-A-Za-z0-9_.])"
_DNS_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_KEY: Final = rf"(?:(?=[-a-z0-9.]{{1,253}}/){_DNS_LABEL}(?:\.{_DNS_LABEL})*/)?{_NAME}"
_VALUE: Final = rf"(?:{_NAME})?"
_BLANKS: Final = " \t\r\n"  # no others of Unicode
_GAP: Final = f"[{_BLANKS}]*"
# No two repetitions that take the same characters follow each other: a long text takes time in proportion to it.
_TERM: Final = re.compile(
    rf"{_GAP}(?:(?P<key>{_KEY}){_GAP}(?P<op>==|=|!=){_GAP}(?P<value>{_VALUE})"
    rf"|(?P<of>{_KEY})[{_BLANKS}]+(?P<set>in|notin){_GAP}\((?P<values>[^()]*)\)"
    rf"|(?:(?P<no>!){_GAP})?(?P<has>{_KEY})){_GAP}(?:,|$)"
)


def parse_selector(text: str) -> Selector:
    """Return a label selector as a predicate of labels; an empty one selects everything.

    Raises:
        ValueError: the text is not a label selector.
    """
    terms, at, text = [], 0, text.rstrip(_BLANKS)
    if text.endswith(","):
        raise ValueError(f"{text!r} is not a label selector: it ends with a comma")
    while at < len(text):
        match = _TERM.match(text, at)
        if match is None:
            raise ValueError(f"{text!r} is not a label selector; expected one such as app=a,tier in (x, y)")
        terms.append(_parse_term(match.groupdict()))
        at = match.end()
    return lambda labels: all(term(labels) for term in terms)


def _parse_term(groups: Mapping[str, str | None]) -> Selector:
    text = {name: value or "" for name, value in groups.items()}
    if key := text["key"]:
        return lambda labels: (labels.get(key) == text["value"]) is (text["op"] != "!=")
    if of := text["of"]:
        values = {value.strip(_BLANKS) for value in text["values"].split(",")}
        for value in values:
            if re.fullmatch(_VALUE, value) is None:
                raise ValueError(f"{value!r} is not a label's value")
        return lambda labels: (labels.get(of) in values) is (text["set"] == "in")
    return lambda labels: (text["has"] in labels) is not bool(text["no"])
