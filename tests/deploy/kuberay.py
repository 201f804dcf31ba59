"""The fields of KubeRay's RayJob, strict: what its reference of version 1.7 lists, and nothing else.

No package of the index ships the operator's own schema, so this is written from the reference, for the kinds that
`deploy/rayjob.yaml` uses. Pod templates are left to the Kubernetes schemas.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Template = dict[str, Any]
Texts = dict[str, str]
Count = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[int, Field(strict=True, ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AuthOptions(_Strict):
    mode: Literal["disabled", "token"] = "token"
    secretName: str | None = None
    enableK8sTokenAuth: bool | None = None


class AutoscalerOptions(_Strict):
    version: Literal["v1", "v2"] | None = None
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] | None = None
    idleTimeoutSeconds: Count | None = None
    image: str | None = None
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] | None = None
    resources: dict[str, Any] | None = None
    securityContext: dict[str, Any] | None = None
    env: list[dict[str, Any]] = []
    envFrom: list[dict[str, Any]] = []
    volumeMounts: list[dict[str, Any]] = []
    command: list[str] = []
    args: list[str] = []


class HeadGroup(_Strict):
    template: Template
    rayStartParams: Texts = {}
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None
    headService: dict[str, Any] | None = None
    enableIngress: bool | None = None
    ingressOptions: dict[str, Any] | None = None
    resources: Texts = {}
    labels: Texts = {}


class WorkerGroup(_Strict):
    groupName: str
    template: Template
    rayStartParams: Texts = {}
    replicas: Count = 0
    minReplicas: Count = 0
    maxReplicas: Count = 2**31 - 1
    numOfHosts: Positive = 1
    idleTimeoutSeconds: Count | None = None
    priority: Annotated[int, Field(strict=True)] = 0
    resources: Texts = {}
    labels: Texts = {}
    scaleStrategy: dict[str, Any] | None = None
    suspend: bool | None = None

    @model_validator(mode="after")
    def _ordered(self) -> WorkerGroup:
        if not self.minReplicas <= self.replicas <= self.maxReplicas:
            raise ValueError(f"{self.groupName}: {self.minReplicas} <= {self.replicas} <= {self.maxReplicas} is wrong")
        return self


class RayClusterSpec(_Strict):
    rayVersion: str
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup] = []
    authOptions: AuthOptions | None = None
    enableInTreeAutoscaling: bool | None = None
    autoscalerOptions: AutoscalerOptions | None = None
    headServiceAnnotations: Texts = {}
    gcsFaultToleranceOptions: dict[str, Any] | None = None
    historyServerOptions: dict[str, Any] | None = None
    networkPolicy: dict[str, Any] | None = None
    tlsOptions: dict[str, Any] | None = None
    upgradeStrategy: dict[str, Any] | None = None
    managedBy: str | None = None
    suspend: bool | None = None


class RayJobSpec(_Strict):
    entrypoint: str
    rayClusterSpec: RayClusterSpec
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] = "K8sJobMode"
    submitterPodTemplate: Template | None = None
    submitterConfig: dict[str, int] | None = None
    runtimeEnvYAML: str | None = None
    jobId: str | None = None
    metadata: Texts = {}
    clusterSelector: Texts = {}
    entrypointResources: str | None = None
    entrypointNumCpus: float | None = None
    entrypointNumGpus: float | None = None
    activeDeadlineSeconds: Positive | None = None
    preRunningDeadlineSeconds: Positive | None = None
    backoffLimit: Count = 0
    shutdownAfterJobFinishes: bool = False
    ttlSecondsAfterFinished: Count = 0
    deletionStrategy: dict[str, Any] | None = None
    managedBy: str | None = None
    suspend: bool | None = None


class RayJob(_Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: dict[str, Any]
    spec: RayJobSpec
