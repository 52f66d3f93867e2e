"""The one record that every resource is, and the kinds of resources there are.

Describe answers are the Create request plus status, so a resource is `spec` (what the user sent, under the wire's own
names) and `status` (what only controllers write). Members of `status` that the service model does not know are
private to the controllers: the codec drops them on the way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Kind:
    """A family of resources: how its operations, members and ARNs are named."""

    name: str
    """Singular as AWS's operations name it: `Model`, `EndpointConfig`, `Endpoint`."""
    plural: str
    """As List operations name it: `Models`. Also the member that holds the summaries."""
    arn_type: str
    """The first part of the ARN's resource: `model`, `endpoint-config`."""
    title: str
    """The words in error texts: `endpoint configuration`."""
    case_insensitive: bool = False
    """True where two names that differ only in case collide (endpoints, transform jobs)."""
    status_member: str | None = None
    """The member that StatusEquals filters and SortBy=Status sorts on, if the kind has one."""
    list_member: str = ""
    """The member of List answers that holds the summaries, where it is not `plural`."""
    ascending: bool = False
    """True where lists begin with the oldest unless they are told otherwise (the registry)."""
    missing: str = 'Could not find {title} "{arn}".'
    taken: str = 'Cannot create already existing {title} "{arn}".'
    """What is said of a name that nobody has, and of one that somebody has."""
    taken_code: str = ""
    """The error of a name that somebody has, where it is not ValidationException."""

    @property
    def name_member(self) -> str:
        return f"{self.name}Name"

    @property
    def arn_member(self) -> str:
        return f"{self.name}Arn"


MODEL = Kind("Model", "Models", "model", "model")
ENDPOINT_CONFIG = Kind("EndpointConfig", "EndpointConfigs", "endpoint-config", "endpoint configuration")
ENDPOINT = Kind("Endpoint", "Endpoints", "endpoint", "endpoint", case_insensitive=True, status_member="EndpointStatus")
INFERENCE_COMPONENT = Kind(
    "InferenceComponent",
    "InferenceComponents",
    "inference-component",
    "inference component",
    status_member="InferenceComponentStatus",
)
MODEL_PACKAGE_GROUP = Kind(
    "ModelPackageGroup",
    "ModelPackageGroups",
    "model-package-group",
    "model package group",
    status_member="ModelPackageGroupStatus",
    list_member="ModelPackageGroupSummaryList",
    ascending=True,
    missing="ModelPackageGroup {arn} does not exist.",
    taken="Model Package Group already exists: {arn}",
)
MODEL_PACKAGE = Kind(
    "ModelPackage",
    "ModelPackages",
    "model-package",
    "model package",
    status_member="ModelPackageStatus",
    list_member="ModelPackageSummaryList",
    ascending=True,
    missing="ModelPackage {arn} does not exist.",
    taken="ModelPackage already exists: {arn}",
)
"""A version's name is `<group>/<number>` with nine digits, so that versions sort as numbers; the ARN has the plain
number. A package outside groups has a plain name."""

TRANSFORM_JOB = Kind(
    "TransformJob",
    "TransformJobs",
    "transform-job",
    "transform job",
    case_insensitive=True,
    status_member="TransformJobStatus",
    list_member="TransformJobSummaries",
    missing="Could not find requested job with name: {name}",
    taken="Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})",
    taken_code="ResourceInUse",
)

KINDS: tuple[Kind, ...] = (
    MODEL,
    ENDPOINT_CONFIG,
    ENDPOINT,
    INFERENCE_COMPONENT,
    MODEL_PACKAGE_GROUP,
    MODEL_PACKAGE,
    TRANSFORM_JOB,
)


@dataclass(frozen=True, slots=True)
class Resource:
    """One stored resource. Times are seconds since the epoch, to the microsecond."""

    kind: str
    name: str
    arn: str
    spec: Mapping[str, object]
    status: Mapping[str, object] = field(default_factory=dict)
    generation: int = 1
    """Counts changes of `spec` and deletion: a status is written only by who has seen the newest generation."""
    created_at: float = 0.0
    modified_at: float = 0.0
    deleting: bool = False
    """DeleteEndpoint was called; the row goes when nothing of the resource runs any more."""


@dataclass(frozen=True, slots=True)
class Partition:
    """Where this Clary says it is: it appears in every ARN."""

    account_id: str
    region: str

    @property
    def name(self) -> str:
        """`aws`, `aws-cn` or `aws-us-gov`, by the region."""
        if self.region.startswith("cn-"):
            return "aws-cn"
        return "aws-us-gov" if self.region.startswith("us-gov-") else "aws"

    def arn(self, kind: Kind, name: str) -> str:
        """Give the ARN of a resource. The name is kept as it is: ARNs are resolved without regard to case."""
        return f"arn:{self.name}:sagemaker:{self.region}:{self.account_id}:{kind.arn_type}/{name}"

    def name_of(self, kind: Kind, name_or_arn: str) -> str:
        """Give the name in an ARN of this kind, and anything else as it is: an ARN from elsewhere is nobody's name."""
        prefix = self.arn(kind, "")
        is_ours = name_or_arn.lower().startswith(prefix.lower())
        return name_or_arn[len(prefix) :] if is_ours else name_or_arn

    def log_group_arn(self, group: str) -> str:
        """Give the ARN of a log group (ModelError calls it LogStreamArn)."""
        return f"arn:{self.name}:logs:{self.region}:{self.account_id}:log-group:{group}"


def component_log_group(component: str) -> str:
    """Give the CloudWatch log group of an inference component."""
    return f"/aws/sagemaker/InferenceComponents/{component}"


TRANSFORM_LOGS = "/aws/sagemaker/TransformJobs"
"""The CloudWatch log group of all transform jobs."""


def log_group(endpoint: str) -> str:
    """Give the CloudWatch log group of an endpoint."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"
