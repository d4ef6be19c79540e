"""What the operator was granted beside what it used in the whole run, by the API server's audit log."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.audit import Account, Use, granted, refused, used
from tests.support.place import METRICS_API, OPERATOR, SYSTEM, Place

# What is granted and stays unused here, and why it is granted all the same.
KEPT_FOR_A_REASON = {
    Use("conch.dev", "inferenceservices/finalizers", "update"): (
        "required by the admission plugin OwnerReferencesPermissionEnforcement, which this cluster has off"
    ),
    **{
        Use("", "configmaps", verb): "of Kubernetes' own role extension-apiserver-authentication-reader, for one name"
        for verb in ("list", "watch")
    },
    Use("authentication.k8s.io", "tokenreviews", "create"): (
        "for clients that call the metrics API past the API server; tests/api does"
    ),
}


@pytest.mark.last
@pytest.mark.parametrize("name", [OPERATOR, METRICS_API])
def test_the_permissions_of_a_component_are_those_in_use(
    place: Place, audit_from: int, figure: Callable[[str], None], name: str
) -> None:
    assert place.local is not None
    log, account = place.local.audit_log, Account(SYSTEM, name)
    may, did = granted(place.kube, account), used(log, account)
    denied = refused(log, account, audit_from)
    idle = {use for use in may - did if use not in KEPT_FOR_A_REASON}
    figure(f"{len(may)} rights granted, {len(did)} used")
    figure(f"granted and not used: {', '.join(sorted(map(str, may - did))) or 'nothing'}")
    figure(f"used by other roles than its own: {', '.join(sorted(map(str, did - may))) or 'nothing'}")
    assert not denied
    assert not idle
