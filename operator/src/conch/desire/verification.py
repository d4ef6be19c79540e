"""Checks and decryption of a model's files: in its manifest, and the ConfigMaps and Secrets that its pods mount."""

from collections.abc import Iterable

from conch.api import Model
from conch_contract import Decryption, Signature, Verification


def build_verification(model: Model) -> Verification | None:
    """Return the checks of a model's files; None: there are none."""
    checks = model.storage.verify if model.storage else None
    if checks is None or not (checks.digest or checks.signature):
        return None
    signature = checks.signature
    needed = Signature(config_map=signature.config_map_ref.name, path=signature.path) if signature else None
    return Verification(digest=checks.digest, signature=needed)


def list_trusted(models: Iterable[Model]) -> list[str]:
    """Return the names of the ConfigMaps with trusted keys, in the order of the models."""
    checks = (build_verification(model) for model in models)
    names = (each.signature.config_map for each in checks if each and each.signature)
    return list(dict.fromkeys(names))


def build_decryption(model: Model) -> Decryption | None:
    """Return the keys of a model's files; None: they are not encrypted."""
    keys = model.storage.decrypt if model.storage else None
    return Decryption(secret=keys.secret_ref.name) if keys else None


def list_key_secrets(models: Iterable[Model]) -> list[str]:
    """Return the names of the Secrets with age identities, in the order of the models."""
    keys = (build_decryption(model) for model in models)
    return list(dict.fromkeys(each.secret for each in keys if each))
