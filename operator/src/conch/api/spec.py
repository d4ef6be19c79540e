"""The spec of an InferenceService. The operator never writes it; defaults are here and in the CRD's schema."""

from typing import Annotated, Final, Self

from pydantic import ConfigDict, Field, model_validator

from conch.api._base import DURATION_PATTERN, Part, duration_seconds, list_map_key
from conch.api.analysis import JOB_METRICS
from conch.api.autoscaling import NEEDS_TRIGGERS, SEEN_WITHOUT_PODS, Autoscaling
from conch.api.cache import Cache
from conch.api.cel import Rule, rules
from conch.api.model import Model, TritonName, cel_may_be_folder
from conch.api.models import MAX_MODELS, REPOSITORY, NamedModel, PipelineStep, program_rule
from conch.api.pod import END_SECONDS, LongestRequest, Pod, Resources
from conch.api.rollout import Rollout
from conch.api.traffic import Traffic
from conch.api.triton import MODEL_FIELDS, Triton
from conch.api.variants import MAX_VARIANTS, Variant
from conch.api.warmup import Warmup
from conch_contract.sentences import join_words

_HAS_FOLDER: Final = cel_may_be_folder("self.model.storageUri")
_IS_REPOSITORY: Final = f"has(self.model) && self.model.modelFormat.name == '{REPOSITORY}'"
_SEVERAL: Final = f"has(self.models) || ({_IS_REPOSITORY})"
_WARMUP_OF_PIPELINE: Final = (
    "warmup.path is a folder of the model's files, and a pipeline has none; use warmup.requests or warmup.configMapRef"
)
LONGEST_REQUEST_SECONDS: Final = 30.0  # the default of longestRequest


class Predictor(Part):
    """The model, its configuration in Triton, and its pods."""

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
                message="autoscaling needs maxReplicas above minReplicas; set maxReplicas or remove autoscaling",
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
                message="gpuUtilization needs pods with a GPU; set resources.limits['nvidia.com/gpu'], or scale by"
                " another metric, such as queueToComputeRatio",
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
                message="gpus are counted from 0, so each must be below resources.limits['nvidia.com/gpu']; lower it or"
                " raise the limit",
                path=".triton.instanceGroups",
            ),
            program_rule("self.model").only_if("has(self.model)"),
            Rule(
                "has(self.model) != has(self.models)",
                message="a predictor has exactly one of model and models; keep one of them",
            ),
            Rule(
                f"({_SEVERAL}) == has(self.entry)",
                message=f"entry is the model of several that clients call, and modelFormat.name {REPOSITORY} and models"
                " need it; set it there, and remove it with one model, whose name is model.name",
                path=".entry",
            ),
            Rule(
                "!has(self.models) || !has(self.entry) || has(self.pipeline)"
                " || self.models.exists(m, m.name == self.entry)",
                message="entry is the name of one of models; correct it",
                path=".entry",
            ),
            Rule(
                "!has(self.pipeline) || !has(self.models) || !has(self.entry)"
                " || !self.models.exists(m, m.name == self.entry)",
                message="one of models has the name in entry, which is that of the pipeline; rename one of them",
                path=".entry",
            ),
            Rule(
                "!has(self.pipeline) || has(self.models)",
                message="a pipeline connects models; write its models, or each folder of the repository, as models",
                path=".pipeline",
            ),
            Rule(
                "!has(self.pipeline) || !has(self.models)"
                " || self.pipeline.all(step, self.models.exists(m, m.name == step.model))",
                message="the steps of a pipeline are names of models; add the model, or correct the step",
                path=".pipeline",
            ),
            Rule(
                "!has(self.pipeline)"
                " || self.pipeline.all(step, self.pipeline.exists_one(other, other.model == step.model))",
                message="a pipeline has each model once; remove a step, or write an ensemble of your own",
                path=".pipeline",
            ),
            Rule(
                "!has(self.models) || self.models.all(m, !has(m.required) || m.required || ((!has(self.entry)"
                " || m.name != self.entry) && (!has(self.pipeline) || !self.pipeline.exists(s, s.model == m.name))))",
                message="the entry and the steps of a pipeline are required; remove required: false from them",
                path=".models",
            ),
            Rule(
                "!has(self.models) || !has(self.entry)"
                " || !self.models.exists(m, m.name == self.entry && has(m.warmup))",
                message="a model is the entry; move its warmup to predictor.warmup",
                expression="self.entry + ' is the entry; move its warmup to predictor.warmup'",
                path=".models",
            ),
            Rule(
                "!has(self.pipeline) || !has(self.warmup) || !has(self.warmup.path)",
                message=_WARMUP_OF_PIPELINE,
                path=".warmup.path",
            ),
            Rule(
                f"!({_IS_REPOSITORY}) || !has(self.model.name)",
                message="model.name is of one model, and those of a repository have the names of their folders; remove"
                " it, and set entry to the folder of the model that clients call",
                path=".model.name",
            ),
            Rule(
                f"!({_IS_REPOSITORY}) || !has(self.model.storage) || !has(self.model.storage.verify)"
                " || !has(self.model.storage.verify.digest)",
                message="a digest is of one model, and a repository has several; remove it, or write each folder of the"
                " repository as one of models",
                path=".model.storage.verify.digest",
            ),
            Rule(
                f"!({_IS_REPOSITORY}) || {_HAS_FOLDER}",
                message="a repository needs a storageUri that is a folder, and this one is a file; write the folder",
                path=".model.storageUri",
            ),
            Rule(
                f"!({_SEVERAL}) || !has(self.triton)"
                f" || !({' || '.join(f'has(self.triton.{field})' for field in MODEL_FIELDS)})",
                message=f"{join_words((f'triton.{field}' for field in MODEL_FIELDS), 'and')} are of one model; write"
                " them into config.pbtxt of the models of the repository, or into triton of one of models",
                path=".triton",
            ),
            Rule(
                "!has(self.longestRequest) || !has(self.pod) || !has(self.pod.terminationGracePeriodSeconds)"
                f" || !self.longestRequest.matches('{DURATION_PATTERN}')"
                f" || duration(self.longestRequest).getSeconds() + {END_SECONDS}"
                " <= self.pod.terminationGracePeriodSeconds",
                message="pod.terminationGracePeriodSeconds must be at least longestRequest plus"
                f" {END_SECONDS} s; raise it or remove it",
                path=".longestRequest",
            ),
            Rule(
                f"!has(self.warmup) || !has(self.warmup.path) || !has(self.model) || ({_HAS_FOLDER})",
                message="warmup.path needs a storageUri that is a folder, and this one is a file; use warmup.requests"
                " or warmup.configMapRef, or the storageUri of a folder",
                path=".warmup.path",
            ),
        )
    )

    model: Model | None = None
    """The model, its format and its storage. Absent: models has several."""
    models: Annotated[tuple[NamedModel, ...], Field(min_length=1, max_length=MAX_MODELS), list_map_key("name")] = ()
    """Several models in the same pods, such as an ensemble and its steps. Absent: model is the only one, or a
    repository."""
    entry: TritonName | None = None
    """Name of the model of several, or of the pipeline, that clients call. Gates, warm-up, autoscaling and load tests
    use it, too."""
    pipeline: Annotated[tuple[PipelineStep, ...], Field(min_length=1, max_length=MAX_MODELS)] = ()
    """Models that answer a request one after another, each with what those before it return, in place of an ensemble
    that you write. Its name is entry. Absent: entry is one of models."""
    cache: Cache | None = None
    """How pods share what they fetch. Absent: each fetches its models alone."""
    triton: Triton = Triton()
    """Configuration of the model in Triton, and flags of Triton."""
    resources: Resources = Resources()
    """Resource requests and limits of Triton's container."""
    min_replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """Number of pods of a revision; with autoscaling their minimum. 0 needs autoscaling.triggers: KEDA removes the last
    pod of a revision that has served, and starts one when a trigger becomes active."""
    max_replicas: Annotated[int | None, Field(ge=1, le=10_000)] = None
    """Maximum number of pods of a revision. Absent: minReplicas, without autoscaling."""
    autoscaling: Autoscaling | None = None
    """Metrics and behavior of the autoscaling between minReplicas and maxReplicas."""
    warmup: Warmup | None = None
    """Warm-up of the model before its first request of a client. {}: with generated requests. Absent: no warm-up."""
    longest_request: LongestRequest | None = None
    """Maximum duration of a request or gRPC stream, between 1s and 12h. A terminating pod completes its requests within
    it, and it sets the timeout of the HTTPRoute. Absent: 30s, and no timeout of the HTTPRoute."""
    pod: Pod = Pod()
    """Settings of the pods: scheduling, environment, volumes and metadata."""

    @model_validator(mode="after")
    def _has_models(self) -> Self:
        if (self.model is None) != bool(self.models):
            raise ValueError("a predictor has exactly one of model and models; keep one of them")
        return self

    def with_entry(self, name: str) -> Self:
        """Return the predictor with another name of the model that clients call."""
        if self.model is None:
            return self.model_copy(update={"entry": name})
        if self.model.model_format.name == REPOSITORY:
            model = self.model.model_copy(update={"name": None})
            return self.model_copy(update={"model": model, "entry": name})
        model = self.model.model_copy(update={"name": name})
        return self.model_copy(update={"model": model, "entry": None})

    def list_models(self, entry: str) -> tuple[NamedModel, ...]:
        """Return the models, each with its configuration; a repository is one, with the name of its entry.

        Args:
            entry: Name of the model that clients call, which a single model has.
        """
        if self.model is None:
            return self.models
        fields = {name: getattr(self.model, name) for name in Model.model_fields}
        return (NamedModel.model_construct(**{**fields, "name": entry}, triton=self.triton),)

    @property
    def longest_request_seconds(self) -> float:
        """Maximum duration of a request in seconds."""
        return duration_seconds(self.longest_request) if self.longest_request else LONGEST_REQUEST_SECONDS

    @property
    def scales(self) -> bool:
        """True if an autoscaler sets the number of pods."""
        return self.max_replicas is not None and self.max_replicas > self.min_replicas


class Spec(Part):
    """Desired state of an InferenceService."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.traffic) || !has(self.rollout) || !has(self.rollout.steps)"
                " || (has(self.rollout.strategy) && self.rollout.strategy == 'Swap')"
                " || (has(self.rollout.onInsufficientCapacity) && self.rollout.onInsufficientCapacity == 'Swap')"
                " || self.rollout.steps.all(s, !has(s.weight) || s.weight == 0 || s.weight == 100)",
                message="a weight between 0 and 100 needs a gateway or a split by replicas; set traffic.gateways or"
                " traffic.split, or strategy to Swap, or remove the step",
                path=".rollout.steps",
            ),
            Rule(
                "!has(self.variants) || self.variants.all(v, !has(v.predictor) || (has(self.predictor.models)"
                " ? !has(v.predictor.model) : !has(v.predictor.models)))",
                message="a variant changes model where the predictor has model, and models where it has models; use"
                " the field of the predictor",
                path=".variants",
            ),
            Rule(
                "!has(self.variants) || !has(self.predictor.models) || self.variants.all(v, !has(v.predictor)"
                " || !has(v.predictor.models) || v.predictor.models.all(m,"
                " self.predictor.models.exists(p, p.name == m.name)))",
                message="a variant changes models of the predictor, and one of its models has a name that the predictor"
                " lacks; correct the name",
                path=".variants",
            ),
            Rule(
                "!has(self.variants) || !has(self.predictor.pipeline) || self.variants.all(v, !has(v.predictor)"
                " || !has(v.predictor.warmup) || !has(v.predictor.warmup.path))",
                message=_WARMUP_OF_PIPELINE,
                path=".variants",
            ),
            *(
                Rule(
                    "!has(self.rollout) || !has(self.rollout.analysis)"
                    f" || !self.rollout.analysis.exists(gate, has(gate.{gate})) || has(self.predictor.warmup)",
                    message=f"a {gate} gate needs predictor.warmup, {metric.use_of_warmup}; set predictor.warmup"
                    " ({} generates requests from the model's metadata), or remove the gate",
                    path=".rollout.analysis",
                )
                for gate, metric in JOB_METRICS.items()
                if metric.use_of_warmup
            ),
            Rule(
                "!has(self.variants) || self.variants.map(v, has(v.weight) ? v.weight : 0).sum() < 100",
                message="the sum of the variants' weights must be below 100, since the predictor has the rest; lower"
                " them",
                path=".variants",
            ),
            Rule(
                "!has(self.variants) || (has(self.traffic) && has(self.traffic.gateways))"
                " || !self.variants.exists(v, has(v.weight) || has(v.match) || has(v.mirror))",
                message="weight, match and mirror of a variant need a gateway; set traffic.gateways, or remove them and"
                " send requests to the variant's own Service",
                path=".variants",
            ),
            Rule(
                "!has(self.variants) || !has(self.traffic) || !has(self.traffic.split)",
                message="traffic.split sends requests to all pods, those of variants included; set traffic.gateways in"
                " place of traffic.split, or remove variants",
                path=".variants",
            ),
            Rule(
                "!has(self.variants) || (has(self.traffic) && has(self.traffic.gateways)) || !has(self.rollout)"
                " || !((has(self.rollout.strategy) && self.rollout.strategy == 'Swap')"
                " || (has(self.rollout.onInsufficientCapacity) && self.rollout.onInsufficientCapacity == 'Swap'))",
                message="Swap without a gateway sends requests to all pods, those of variants included; set"
                " traffic.gateways, or remove variants or Swap",
                path=".variants",
            ),
            Rule(
                "!has(self.variants) || self.variants.all(v, !has(v.match) || v.match.all(m, self.variants.all(w,"
                " w.name == v.name || !has(w.match) || !(m in w.match))))",
                message="two variants have the same match; change or remove one",
                path=".variants",
            ),
            Rule(
                "!has(self.variants) || self.variants.all(v, !has(v.predictor) || !(has(v.predictor.maxReplicas)"
                " || has(v.predictor.minReplicas))"
                " || (!has(v.predictor.maxReplicas) && !has(self.predictor.maxReplicas))"
                " || (has(v.predictor.maxReplicas) ? v.predictor.maxReplicas : self.predictor.maxReplicas)"
                " >= (has(v.predictor.minReplicas) ? v.predictor.minReplicas : self.predictor.minReplicas))",
                message="a variant has maxReplicas below minReplicas, one of which it takes from the predictor; set"
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
                message=f"{NEEDS_TRIGGERS}, which a variant with minReplicas 0 lacks; add"
                " predictor.autoscaling.triggers to it, or set its minReplicas to 1 or more",
                path=".variants",
            ),
        )
    )

    predictor: Predictor
    """The model, its configuration in Triton, and its pods."""
    rollout: Rollout = Rollout()
    """Rollout of a new revision after a change of the predictor."""
    variants: Annotated[tuple[Variant, ...], Field(max_length=MAX_VARIANTS), list_map_key("name")] = ()
    """Variants of the predictor that serve beside it, each with revisions and a rollout of its own."""
    traffic: Traffic | None = None
    """Routes of requests from clients to pods. Absent: the root Service only, without weights."""
