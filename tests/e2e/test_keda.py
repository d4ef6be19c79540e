"""KEDA drives the pods: the last one goes when nobody asks, and comes back when somebody does.

Conch is installed with KEDA for this file, and as before afterwards: one cluster has one Conch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.api.kinds import AUTOSCALER, SCALED_OBJECT
from conch_contract import names
from tests.support import filetypes, keda, prometheus
from tests.support.audit import Account, granted, used
from tests.support.gateways import Gateway
from tests.support.kube import Kube
from tests.support.place import OPERATOR, SYSTEM, Place
from tests.support.service import Service
from tests.support.traffic import Mix, Traffic
from tests.support.wait import until
