"""The Service by which the pods of an InferenceService know each other, to send each other what they fetch."""

from typing import Final

from conch.api import InferenceService
from conch.api.kinds import SERVICE
from conch.api.meta import Manifest, child, selector
from conch.observe.fields import mapping, mappings, text
from conch.observe.pod import Body
from conch_contract import names

_OPTION: Final = "--peer="


def peers_name(service: InferenceService) -> str:
    """Return the name of the Service. No revision or variant has it: theirs have one hyphen after the service's name.

    Args:
        service: The service.
    """
    return f"{service.metadata.name}--peers"


def build_peer_option(service: InferenceService) -> str:
    """Return the option of an agent that has the Service.

    Args:
        service: The service.
    """
    return f"{_OPTION}{peers_name(service)}.{service.metadata.namespace}.svc"


def has_peers(template: Body) -> bool:
    """Return True if pods know each other by the Service.

    A revision has it as long as it has pods, whatever the spec is by now.

    Args:
        template: Their template.
    """
    agents = mappings(mapping(template.get("spec")).get("initContainers"))
    commands = [command for agent in agents if isinstance(command := agent.get("command"), list)]
    return any(text(option).startswith(_OPTION) for command in commands for option in command)


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
