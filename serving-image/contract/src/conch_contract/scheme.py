"""The parts of a row of the table of schemes."""

from dataclasses import dataclass
from enum import Enum, auto

from conch_contract.sentences import join_words


class Mount(Enum):
    """Volumes that the agent's container mounts for the files of a storageUri."""

    NONE = auto()  # the agent fetches the files over the network
    CLAIM = auto()  # the persistent volume claim that the URI names first, at PVC_DIR/<claim>
    USER_VOLUMES = auto()  # the volumeMounts of spec.predictor.pod


@dataclass(frozen=True)
class SecretKey:
    """A key of the storage Secret.

    Attributes:
        name: The key.
        meaning: The setting of the key, for the reference page.
        is_credential: True for a key that the message about a missing Secret lists.
        is_address: True for the key of the store's address, without which a URI may be of several stores.
    """

    name: str
    meaning: str
    is_credential: bool = False
    is_address: bool = False


@dataclass(frozen=True)
class Refusal:
    """URIs that a scheme's pattern matches and that the API server refuses.

    Attributes:
        patterns: Regular expressions (RE2) of the beginnings of such URIs.
        message: The kind of URI, and what to write in its place.
    """

    patterns: tuple[str, ...]
    message: str


@dataclass(frozen=True)
class Scheme:
    """A kind of storage.

    Attributes:
        name: The part of the URI before `://`.
        pattern: Regular expression (RE2) of the part after `://`.
        examples: Examples of the part after `://`, from the shortest form to the longest. Messages suggest the last.
        files: The files of the URI, for the reference page.
        resumption: The resumption of an interrupted fetch, for the reference page.
        exclusions: Parts that the URI must not have, for messages; empty: only those of the pattern.
        has_plaintext: True if the scheme is also accepted without TLS, and then without the `s` at its end.
        is_object_store: True for an object store, of whose files pods may send each other ranges.
        is_one_file: True if the URI names one file, so that there is no folder of warm-up requests beside it.
        secret_keys: Keys of the Secret of storage.secretRef; empty: the scheme takes no Secret.
        mount: Volumes that the agent's container mounts.
        refusals: URIs that the API server refuses with messages of their own.
    """

    name: str
    pattern: str
    examples: tuple[str, ...]
    files: str
    resumption: str
    exclusions: str = ""
    has_plaintext: bool = False
    is_object_store: bool = False
    is_one_file: bool = False
    secret_keys: tuple[SecretKey, ...] = ()
    mount: Mount = Mount.NONE
    refusals: tuple[Refusal, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The scheme and its variant without TLS."""
        return (self.name, self.name.removesuffix("s")) if self.has_plaintext else (self.name,)

    @property
    def prefix(self) -> str:
        """Regular expression of the beginning of a URI."""
        return f"{self.name}?://" if self.has_plaintext else f"{self.name}://"

    @property
    def example(self) -> str:
        """The URI that messages suggest."""
        return f"{self.name}://{self.examples[-1]}"

    @property
    def form(self) -> str:
        """The form of a URI, for messages.

        >>> Scheme("ftp", ".*", ("host/file",), "", "", exclusions="blanks").form
        'ftp://host/file, without blanks'
        """
        forms = join_words((f"{self.name}://{example}" for example in self.examples), "or")
        return f"{forms}, without {self.exclusions}" if self.exclusions else forms
