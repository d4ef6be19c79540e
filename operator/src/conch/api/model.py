"""The model of a predictor: its name, format and storage."""

import json
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from conch.api._base import DurationText, ObjectName, Part, duration_rule, duration_seconds, list_map_key
from conch.api.cel import Choice, Rule, rules
from conch.api.verification import Verification
from conch_contract.formats import FORMATS, OTHER_FORMATS, FormatName
from conch_contract.scheme import Scheme
from conch_contract.schemes import REMEDIES, SCHEMES, list_names
from conch_contract.sentences import join_words

DEFAULT_REFRESH_SECONDS: Final = 60.0
_EXAMPLES: Final = join_words((scheme.example for scheme in SCHEMES.values()), "or")
_UNKNOWN_SCHEME: Final = f"storageUri needs another scheme; write it as {_EXAMPLES}"
_WITHOUT_SECRET: Final = list_names(scheme for scheme in SCHEMES.values() if not scheme.secret_keys)
_WITHOUT_NAMES: Final = join_words(_WITHOUT_SECRET, "and")
_IS_WITHOUT: Final = f"matches('^({'|'.join(_WITHOUT_SECRET)})://')"


def _if_set(field: str, uri_present: str, condition: str) -> str:
    """Return CEL that is true if a field of storage is absent, or some CEL is true; also without a storageUri."""
    absent = ["!has(self.storage)", f"!has(self.storage.{field})", *([f"!{uri_present}"] if uri_present else [])]
    return " || ".join((*absent, condition))


def secret_rule(uri_present: str = "") -> Rule:
    """Return the rule of a model whose scheme takes no Secret.

    Args:
        uri_present: CEL that is true where storageUri is present; empty: it is required.
    """
    return Rule(
        _if_set("secretRef", uri_present, f"!self.storageUri.{_IS_WITHOUT}"),
        message=f"storage.secretRef is not used with {_WITHOUT_NAMES}; remove it, or change the scheme of storageUri",
        path=".storage",
    )


def watch_rule(uri_present: str = "") -> Rule:
    """Return the rule of a model whose files may differ from node to node, so that no pod's listing is that of all.

    Args:
        uri_present: As in `secret_rule`.
    """
    return Rule(
        _if_set("watch", uri_present, "self.storage.watch == 'Off' || !self.storageUri.matches('^file://')"),
        message="storage.watch needs a store that all pods read, not file; remove it, or use a scheme such as pvc",
        path=".storage.watch",
    )


def mirror_rule(uri_present: str = "") -> Rule:
    """Return the rule of a model with its storageUri among its mirrors.

    Args:
        uri_present: As in `secret_rule`.
    """
    return Rule(
        _if_set("mirrors", uri_present, "!self.storage.mirrors.exists(m, m.uri == self.storageUri)"),
        message="a mirror has the same URI as storageUri; remove it",
        path=".storage.mirrors",
    )


def _scheme_rule() -> Rule:
    """Return the rule of URIs with another scheme; its message names a remedy for the schemes of other tools.

    For other schemes the expression is empty, and the API server uses the message.
    """
    remedies = (f"self.matches('^({names})://') ? {json.dumps(remedy)} : " for names, remedy in REMEDIES.items())
    return Rule(
        f"self.matches('^({'|'.join(list_names())})://')",
        message=_UNKNOWN_SCHEME,
        expression="".join(remedies) + "''",
    )


def _form_rules() -> Iterator[Rule]:
    """Yield the rules of what follows the scheme.

    One rule has several schemes, because the CRD has several URIs; and not all, because the API server limits the cost
    of a rule.
    """
    schemes = tuple(SCHEMES.values())
    for group in (schemes[: len(schemes) // 2], schemes[len(schemes) // 2 :]):
        forms = "|".join(f"{scheme.prefix}{scheme.pattern}" for scheme in group)
        *others, (_, last) = (
            (scheme.prefix, f"an incomplete {join_words(scheme.names, 'or')} URI; write {scheme.form}")
            for scheme in group
        )
        chain = (f"self.matches('^{prefix}') ? {json.dumps(message)} : " for prefix, message in others)
        yield Rule(
            f"!self.matches('^({'|'.join(list_names(group))})://') || self.matches('^({forms})$')",
            message=last,
            expression="".join(chain) + "''",
        )


def _refusal_rules(scheme: Scheme) -> Iterator[Rule]:
    """Yield the rules of the URIs that have the form of a scheme and that it refuses."""
    for refusal in scheme.refusals:
        yield Rule(" && ".join(f"!self.matches('^{pattern}')" for pattern in refusal.patterns), message=refusal.message)


_URI_RULES: Final = (
    _scheme_rule(),
    *_form_rules(),
    Rule(
        r"!self.matches('^\\s|\\s$|[\\x00-\\x1f\\x7f]')",
        message="storageUri begins or ends with a blank or has a control character; remove it",
    ),
    Rule(
        r"!self.matches('/[.][.]?(/|$)')",
        message="storageUri must not have the folders '.' and '..'; write the path without them",
    ),
    *(rule for scheme in SCHEMES.values() for rule in _refusal_rules(scheme)),
)

StorageUri = Annotated[str, Field(max_length=2048, json_schema_extra=rules(*_URI_RULES))]
"""URI of a model's files. The API server validates it."""


def cel_may_be_folder(uri: str) -> str:
    """Return CEL that is true where a storageUri may be a folder.

    Args:
        uri: CEL of the storageUri.
    """
    return " && ".join(f"!{uri}.matches('^{scheme.prefix}')" for scheme in SCHEMES.values() if scheme.is_one_file)


TritonName = Annotated[
    str,
    Field(max_length=128),
    Rule(
        "self.matches('^[A-Za-z0-9][A-Za-z0-9._-]*$')",
        message="a model's name begins with a letter or a digit and has only letters, digits, '.', '_' and '-';"
        " choose such a name",
    ),
]
"""Name of a model in Triton."""


def _describe_formats() -> str:
    described = (f"{row.name} ({row.summary})" if row.summary else row.name for row in FORMATS.values())
    return f"Format of the model's files: {join_words(described, 'or')}."


class ModelFormat(Part):
    """Format of a model's files."""

    name: Annotated[
        FormatName,
        Choice(
            message=f"modelFormat.name is {join_words(FORMATS, 'or')}; write triton for a model of any other format"
            f" ({', '.join(OTHER_FORMATS)}) in a folder that is laid out for Triton, with version folders and"
            " config.pbtxt"
        ),
        Field(description=_describe_formats()),
    ]


class SecretRef(Part):
    """Reference to a Secret in the namespace of the InferenceService."""

    name: ObjectName
    """Name of the Secret."""


# The rules of storageUri in short, since each model of the CRD has them: the agent refuses what they let pass.
_MIRRORS_RULE: Final = Rule(
    rf"self.all(m, m.uri.matches('^({'|'.join(list_names())})://[^\\s]+$') && !m.uri.matches('/[.][.]?(/|$)')"
    f" && (!has(m.secretRef) || !m.uri.{_IS_WITHOUT}))",
    message=f"a mirror has a uri as storageUri, and no secretRef for {_WITHOUT_NAMES}; correct it, such as"
    f" {SCHEMES['s3'].example}",
)


class Mirror(Part):
    """Another place of the model's files."""

    uri: Annotated[str, Field(max_length=1024)]
    """URI of the files, in the form of storageUri."""
    secret_ref: SecretRef | None = None
    """Its Secret. Absent: none."""


WatchMode = Literal["Off", "Report", "Rollout"]


class Decryption(Part):
    """Keys of files that are encrypted with age."""

    secret_ref: SecretRef
    """Secret with age identities, as age-keygen writes them."""


class Storage(Part):
    """Access to the storage, checks of its files, and the watch for new content."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.refresh) || (has(self.watch) && self.watch != 'Off')",
                message="refresh is the interval of watch; set watch to Report or Rollout, or remove refresh",
                path=".refresh",
            ),
            Rule(
                "!has(self.watch) || self.watch == 'Off' || !has(self.verify) || !has(self.verify.digest)"
                " || self.verify.digest == ''",
                message="with verify.digest the content is fixed; remove watch or verify.digest",
                path=".watch",
            ),
        )
    )

    secret_ref: Annotated[
        SecretRef | None,
        Field(description=f"Secret with credentials and settings of the storage. {_WITHOUT_NAMES} take none."),
    ] = None
    mirrors: Annotated[tuple[Mirror, ...], Field(max_length=4), list_map_key("uri"), _MIRRORS_RULE] = ()
    """Other places of the same files, tried in this order if storageUri fails."""
    verify: Verification | None = None
    """Checks of the files before Triton reads them."""
    decrypt: Decryption | None = None
    """Keys of encrypted files. Absent: they are not encrypted."""
    watch: WatchMode | None = None
    """Reaction to new content at storageUri. Rollout: it becomes a new revision, with the steps and gates of a rollout.
    Report: the condition SourceUpToDate is False. Off: none. Absent: Off."""
    refresh: Annotated[DurationText | None, duration_rule("10s", "24h", example="1m")] = None
    """Interval at which pods list storageUri for watch, such as 5m. Absent: 1m."""


class Model(Part):
    """The model, its format and its storage."""

    model_config = ConfigDict(json_schema_extra=rules(secret_rule(), watch_rule(), mirror_rule()))

    name: TritonName | None = None
    """Name of the model in Triton. Absent: the name of the InferenceService."""
    model_format: ModelFormat
    """Format of the model's files."""
    storage_uri: Annotated[StorageUri, Field(description=f"URI of the model's files: {_EXAMPLES}.")]
    storage: Storage | None = None
    """Access to the storage, and checks of its files. Absent: without credentials and checks."""

    @property
    def watch(self) -> WatchMode:
        """Reaction to new content of the source."""
        return (self.storage and self.storage.watch) or "Off"

    @property
    def refresh_seconds(self) -> float:
        """Seconds between two reads of the source's listing; 0: it is not watched."""
        if self.storage is None or self.watch == "Off":
            return 0.0
        return duration_seconds(self.storage.refresh) if self.storage.refresh else DEFAULT_REFRESH_SECONDS

    @property
    def secret(self) -> str | None:
        """Name of the Secret of the storage; None: there is none."""
        return self.storage.secret_ref.name if self.storage and self.storage.secret_ref else None

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """Other places of the files."""
        return self.storage.mirrors if self.storage else ()

    @property
    def uris(self) -> tuple[str, ...]:
        """URIs of all places of the files."""
        return (self.storage_uri, *(mirror.uri for mirror in self.mirrors))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the Secrets of all places, each once."""
        of_mirrors = (mirror.secret_ref.name for mirror in self.mirrors if mirror.secret_ref)
        return tuple(dict.fromkeys(name for name in (self.secret, *of_mirrors) if name))
