"""The content that a model must have: that of its revision, of its repository's listing, or of storage.verify."""

from __future__ import annotations

from dataclasses import dataclass

from conch_agent.reasons import Failure, Reason, build_superseded
from conch_contract.manifest import ModelSource


@dataclass(frozen=True)
class ExpectedContent:
    """What is known of the content before it is fetched.

    Attributes:
        source: The model in the manifest, with the digest of its revision's first pod.
        identity: Identity of the model's files in the listing of its repository; empty: any files are accepted.
    """

    source: ModelSource
    identity: str = ""

    @property
    def digest(self) -> str:
        """The digest of the revision's content; empty: it has none yet."""
        return self.source.digest

    @property
    def verified_digest(self) -> str:
        """The digest that the content must have, of the revision or of storage.verify; empty: any is accepted."""
        return self.digest or (self.source.verify.digest if self.source.verify else "")

    def check_digest(self, digest: str, place: ModelSource, version_problem: str) -> None:
        """Refuse files that are not those of the revision.

        Args:
            digest: Their digest.
            place: The model at the place that has them.
            version_problem: Why the revision's object versions cannot be read, as a sentence; empty: they can.

        Raises:
            Failure: ContentChanged, or SourceChanged for a mirror.
        """
        if not self.digest or digest == self.digest:
            return
        if place.storage_uri != self.source.storage_uri:
            message = (
                f"{place.storage_uri} has other files than storageUri: this revision serves {self.digest}, and there is"
                f" {digest}. Upload the files of storageUri there, or remove it from storage.mirrors."
            )
            raise Failure(Reason.CHANGED, message)
        detail = f" {version_problem}" if version_problem else ""
        message = (
            f"{self.source.storage_uri} has changed: this revision serves {self.digest}, and there is {digest} now."
            f"{detail} Write each content under a path of its own; to serve this one, change the predictor, such as an"
            " annotation in pod.annotations, so that it becomes a new revision."
        )
        raise Failure(Reason.CONTENT_CHANGED, message)

    def check_listing(self, identity: str, uri: str) -> None:
        """Refuse another listing than that of the model's repository, or of the revision.

        Args:
            identity: Identity of the listing.
            uri: The storageUri of the place.

        Raises:
            Failure: SourceChanged.
        """
        if self.identity and identity != self.identity:
            message = (
                f"{uri} changed after its repository was listed. The repository is listed again, so that all models are"
                " of one upload."
            )
            raise Failure(Reason.CHANGED, message)
        expected = "" if self.digest else self.source.source_identity
        if expected and identity != expected:
            raise build_superseded(uri)
