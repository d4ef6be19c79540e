"""What the user asks for. The operator never writes it; defaults stand here and in the CRD's schema."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from conch.api._base import DURATION_PATTERN, Part, duration_seconds, keyed_by
from conch.api.autoscaling import NEEDS_TRIGGERS, SEEN_WITHOUT_PODS, Autoscaling
from conch.api.cel import Rule, rules
from conch.api.model import Model
from conch.api.pod import END_SECONDS, LongestRequest, Pod, Resources
from conch.api.rollout import Rollout
from conch.api.traffic import Traffic
from conch.api.triton import Triton
from conch.api.variants import MAX_VARIANTS, Variant
from conch.api.warmup import Warmup
from conch_contract.schemes import SCHEMES

# CEL that is true where storageUri may be a folder.
_HAS_FOLDER: Final = " && ".join(
    f"!self.model.storageUri.matches('^{scheme.prefix}')" for scheme in SCHEMES.values() if scheme.is_one_file
)
LONGEST_REQUEST_SECONDS: Final = 30.0  # where the user says nothing


class Predictor(Part):
    """The model, how Triton serves it, and on how many pods of which kind."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!has(self.maxReplicas) || self.maxReplicas >= self.minReplicas",
                message="maxReplicas must be at least minReplicas; raise maxReplicas or lower minReplicas",
                expression="'maxReplicas %d is below minReplicas %d; raise maxReplicas or lower minReplicas'"
                ".format([self.maxReplicas, self.minReplicas])",
                path=".maxReplicas",
            ),
            Rule(
                "!has(self.autoscaling) || (has(self.maxReplicas) && self.maxReplicas > self.minReplicas)",
                message="there is nothing to scale: autoscaling needs maxReplicas above minReplicas;"
                " set maxReplicas or remove autoscaling",
                path=".autoscaling",
            ),
            Rule(
                f"self.minReplicas > 0 || (has(self.autoscaling) && {SEEN_WITHOUT_PODS.format('self.autoscaling')})",
                message=f"{NEEDS_TRIGGERS}; add autoscaling.triggers, or set minReplicas to 1 or more",
                path=".minReplicas",
            ),
            Rule(
                "!has(self.autoscaling) || !has(self.autoscaling.gpuUtilization)"
                " || (has(self.resources) && has(self.resources.limits)"
                " && self.resources.limits.exists(r, r.startsWith('nvidia.com/')))",
                message="pods without a GPU have no gpuUtilization; set resources.limits['nvidia.com/gpu'], or"
                " scale by another metric, such as queueToComputeRatio",
                path=".autoscaling.gpuUtilization",
            ),
            Rule(
                "!has(self.triton) || !has(self.triton.instanceGroups)"
                " || !self.triton.instanceGroups.exists(group, has(group.kind) && group.kind == 'GPU')"
                " || (has(self.resources) && has(self.resources.limits) && self.resources.limits.exists(r,"
                " r.startsWith('nvidia.com/') && string(self.resources.limits[r]) != '0'))",
                message="an instance group of kind GPU needs a GPU; set resources.limits['nvidia.com/gpu']"
                " to at least 1, or the group's kind to CPU or AUTO",
                path=".triton.instanceGroups",
            ),
            Rule(
                "!has(self.triton) || !has(self.triton.instanceGroups)"
                " || self.triton.instanceGroups.all(group, !has(group.gpus) || group.gpus.all(gpu,"
                " has(self.resources) && has(self.resources.limits) && self.resources.limits.exists(r,"
                " r.startsWith('nvidia.com/') && string(self.resources.limits[r]).matches('^[0-9]{1,4}$')"
                " && int(self.resources.limits[r]) > gpu)))",
                message="gpus counts the container's GPUs from 0, so each must be below"
                " resources.limits['nvidia.com/gpu']; lower it or raise the limit",
                path=".triton.instanceGroups",
            ),
            Rule(
                "!has(self.longestRequest) || !has(self.pod) || !has(self.pod.terminationGracePeriodSeconds)"
                f" || !self.longestRequest.matches('{DURATION_PATTERN}')"
                f" || duration(self.longestRequest).getSeconds() + {END_SECONDS}"
                " <= self.pod.terminationGracePeriodSeconds",
                message="a pod that goes must have the time for longestRequest: pod.terminationGracePeriodSeconds is at"
                f" least {END_SECONDS} s more; raise it or remove it",
                path=".longestRequest",
            ),
            Rule(
                f"!has(self.warmup) || !has(self.warmup.path) || {_HAS_FOLDER}",
                message="storageUri names one file, which has no folder for warmup.path; use warmup.requests or"
                " warmup.configMapRef, or another store",
                path=".warmup.path",
            ),
        )
    )

    model: Model
    """Which model is served, and where its files are."""
    triton: Triton = Triton()
    """How Triton serves it."""
    resources: Resources = Resources()
    """What Triton's container asks of the node."""
    min_replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """The number of pods, and with autoscaling the smallest one. 0 with autoscaling.triggers only: KEDA then takes
    the last pod of a revision that has served, and starts one when a trigger asks for it."""
    max_replicas: Annotated[int | None, Field(ge=1, le=10_000)] = None
    """The largest number of pods. Absent: minReplicas, so that nothing is scaled."""
    autoscaling: Autoscaling | None = None
    """What the number of pods follows."""
    warmup: Warmup | None = None
    """How the model is warmed before users reach it; {} suits most. Absent: not at all."""
    longest_request: LongestRequest | None = None
    """Duration for which a terminating pod answers what it has begun: that of the longest request or gRPC stream. The
    timeout of the HTTPRoute follows it. Absent: 30s, and the HTTPRoute has no timeout for it."""
    pod: Pod = Pod()
    """What goes into the pods besides the model."""

    @property
    def longest_request_seconds(self) -> float:
        """How long a request may take, in seconds."""
        return duration_seconds(self.longest_request) if self.longest_request else LONGEST_REQUEST_SECONDS

    @property
    def scales(self) -> bool:
        """Whether an autoscaler owns the number of pods."""
        return self.max_replicas is not None and self.max_replicas > self.min_replicas


class Spec(Part):
    """What the user asks for."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.traffic) || !has(self.rollout) || !has(self.rollout.steps)"
                " || self.rollout.steps.all(s, !has(s.weight) || s.weight == 0 || s.weight == 100)",
                message="nothing enforces a weight between 0 and 100; name a gateway in traffic.gateways, set"
                " traffic.split to Replicas, or remove the step",
                path=".rollout.steps",
            ),
            Rule(
                "!has(self.rollout) || !has(self.rollout.analysis)"
                " || !self.rollout.analysis.exists(gate, has(gate.parity)) || has(self.predictor.warmup)",
                message="a parity gate replays the requests of predictor.warmup, and there is none; set"
                " predictor.warmup ({} makes requests from the model's metadata), or remove the gate",
                path=".rollout.analysis",
            ),
            Rule(
                "!has(self.variants) || self.variants.map(v, has(v.weight) ? v.weight : 0).sum() < 100",
                message="the weights of the variants come to 100 % or more, and the predictor needs its share; lower"
                " them",
                path=".variants",
            ),
            Rule(
                "!has(self.variants) || (has(self.traffic) && has(self.traffic.gateways))"
                " || !self.variants.exists(v, has(v.weight) || has(v.match) || has(v.mirror))",
                message="nothing enforces a variant's weight, match or mirror; name a gateway in traffic.gateways, or"
                " remove them and ask for the variant at its own Service",
                path=".variants",
            ),
            Rule(
                "!has(self.variants) || !has(self.traffic) || !has(self.traffic.split)",
                message="a split by replicas sends requests to all pods of the service, whichever variant they are of;"
                " name a gateway in traffic.gateways in place of traffic.split, or remove variants",
                path=".variants",
            ),
            Rule(
                "!has(self.variants) || self.variants.all(v, !has(v.match) || v.match.all(m, self.variants.all(w,"
                " w.name == v.name || !has(w.match) || !(m in w.match))))",
                message="two variants have the same match, and a request can go to one of them only; change one",
                path=".variants",
            ),
            Rule(
                "!has(self.variants) || self.variants.all(v, !has(v.predictor) || !(has(v.predictor.maxReplicas)"
                " || has(v.predictor.minReplicas))"
                " || (!has(v.predictor.maxReplicas) && !has(self.predictor.maxReplicas))"
                " || (has(v.predictor.maxReplicas) ? v.predictor.maxReplicas : self.predictor.maxReplicas)"
                " >= (has(v.predictor.minReplicas) ? v.predictor.minReplicas : self.predictor.minReplicas))",
                message="with what a variant takes from the predictor, its maxReplicas is below its minReplicas; say"
                " both in the variant",
                path=".variants",
            ),
            Rule(
                "!has(self.variants) || self.variants.all(v,"
                " (has(v.predictor) && has(v.predictor.minReplicas) ? v.predictor.minReplicas"
                " : self.predictor.minReplicas) > 0"
                " || (has(v.predictor) && has(v.predictor.autoscaling)"
                f" ? {SEEN_WITHOUT_PODS.format('v.predictor.autoscaling')}"
                " : has(self.predictor.autoscaling)"
                f" && {SEEN_WITHOUT_PODS.format('self.predictor.autoscaling')}))",
                message=f"{NEEDS_TRIGGERS}, which a variant that has minReplicas 0 lacks; add"
                " predictor.autoscaling.triggers to it, or set its minReplicas to 1 or more",
                path=".variants",
            ),
        )
    )

    predictor: Predictor
    """The model, how Triton serves it, and on how many pods of which kind."""
    rollout: Rollout = Rollout()
    """How a change of the predictor reaches users."""
    variants: Annotated[tuple[Variant, ...], Field(max_length=MAX_VARIANTS), keyed_by("name")] = ()
    """Long-lived variants of the predictor beside it, each with revisions and a rollout of its own."""
    traffic: Traffic | None = None
    """The way from clients to pods. Absent: a Service of the service's name, and nothing else."""
