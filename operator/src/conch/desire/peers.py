"""The Service by which the pods of an InferenceService know each other, to send each other what they fetch."""

from conch.api import InferenceService
from conch.api.kinds import SERVICE
from conch.api.meta import Manifest, child, selector
from conch_contract import names


def peers_name(service: InferenceService) -> str:
    """Return the name of the Service. No revision or variant has it: theirs have one hyphen after the service's name.

    Args:
        service: The service.
    """
    return f"{service.metadata.name}--peers"


def build_peers_service(service: InferenceService) -> Manifest:
    """Build the headless Service of all pods of a service, those of variants included.

    Args:
        service: The service.
    """
    return {
        **child(service, SERVICE, peers_name(service)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # pods that start fetch for each other
            "selector": selector(service),
            "ports": [{"name": "agent", "port": names.AGENT_PORT, "targetPort": "agent", "protocol": "TCP"}],
        },
    }
