"""What the installer sets of the pods of new revisions. The revisions that there are keep what they were made with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from conch.api.meta import Manifest

ANY_NAMESPACE = ""


@dataclass(frozen=True)
class PodDefaults:
    """What the pods of new revisions run, the largest model that they fetch, and how much they store in /tmp."""

    image: str
    pull_policy: str = "IfNotPresent"
    max_model_bytes: Mapping[str, int] = field(default_factory=dict)  # by namespace; ANY_NAMESPACE: the others
    tmp_size_limit: str = ""  # of /tmp in each container, a quantity; empty: what the node's disk holds

    def max_bytes(self, namespace: str) -> int:
        """Return the size in bytes of the largest model that is fetched in a namespace; 0: any.

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
