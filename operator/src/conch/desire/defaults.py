"""Settings of the installation for the pods of new revisions. Existing revisions keep theirs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from conch.api.meta import Manifest

ANY_NAMESPACE = ""


@dataclass(frozen=True)
class PodDefaults:
    """Images and limits of the pods of new revisions."""

    image: str
    pull_policy: str = "IfNotPresent"
    max_model_bytes: Mapping[str, int] = field(default_factory=dict)  # by namespace; ANY_NAMESPACE: all others
    tmp_size_limit: str = ""  # of /tmp in each container, a quantity; empty: no limit

    def max_bytes(self, namespace: str) -> int:
        """Return the maximum size of a model in a namespace in bytes; 0: no limit.

        >>> PodDefaults("conch/serving:1", max_model_bytes={ANY_NAMESPACE: 5, "team-a": 7}).max_bytes("team-a")
        7
        """
        return self.max_model_bytes.get(namespace, self.max_model_bytes.get(ANY_NAMESPACE, 0))

    @property
    def tmp(self) -> Manifest:
        """The volume source of a container's /tmp.

        >>> PodDefaults("conch/serving:1", tmp_size_limit="10Gi").tmp
        {'emptyDir': {'sizeLimit': '10Gi'}}
        """
        return {"emptyDir": {"sizeLimit": self.tmp_size_limit} if self.tmp_size_limit else {}}
