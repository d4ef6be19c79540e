"""Admission of a rollout by the GPUs that are free: the count, eligible nodes, and the decision."""

from conch.decide.admission.budget import resources_per_pod
from conch.decide.admission.check import AdmissionResult, admit, initial_admission, reserve_own_pods

__all__ = ["AdmissionResult", "admit", "initial_admission", "reserve_own_pods", "resources_per_pod"]
