"""Values that do not fit together, and what the chart says of them."""

from tests.chart.parts import EXTERNAL, GPU, pool, submission, two_pools, variable
from tests.chart.refusals_storage import REFUSED_STORAGE
from tests.support.chart import Values

#: What is wrong: values, with a part of the sentence that says what to do.
REFUSED: dict[str, tuple[Values, str]] = {
    # Redis
    "two Redis": (
        {"externalRedis": {"host": "redis.example"}},
        "and externalRedis.host is redis.example: set redis.enabled to false",
    ),
    "no Redis": ({"redis": {"enabled": False}}, "set redis.enabled to true, or externalRedis.host"),
    "TLS without a certificate": (
        {"redis": {"tls": {"enabled": True}}},
        "name its Secret in redis.tls.existingSecret",
    ),
    "a certificate without TLS": (
        {"redis": {"tls": {"existingSecret": "tls"}}},
        "redis.tls.enabled is false: enable it",
    ),
    "an authority without TLS": (
        {**EXTERNAL, "externalRedis": {"host": "r.example", "tls": {"existingSecret": "ca"}}},
        "externalRedis.tls.enabled is false: enable it",
    ),
    "a port in the host": (
        {**EXTERNAL, "externalRedis": {"host": "redis.example:6380"}},
        "and the port as externalRedis.port",
    ),
    "an address of IPv6 with something after it": (
        {**EXTERNAL, "externalRedis": {"host": "2001:db8::1:abcdx:6379"}},
        "write the name or address alone",
    ),
    "passwords that nobody gave": (
        {**EXTERNAL, "secrets": {}},
        "name a Secret that has them in secrets.existingSecret",
    ),
    "clients of a Redis that is not the release's": (
        {**EXTERNAL, "networkPolicy": {"redisClients": [{"podSelector": {}}]}},
        "networkPolicy.redisClients is about the release's own Redis",
    ),
    "more memory than the limit": (
        {"redis": {"maxMemory": "2gb", "persistence": {"size": "8Gi"}}},
        "redis.maxMemory is 2gb, as much as redis.resources.limits.memory (1536Mi) or more",
    ),
    "a volume too small for the file": (
        {"redis": {"maxMemory": "8gb", "resources": {"limits": {"memory": "16Gi"}}}},
        "redis.persistence.size is 4Gi, but the file of a Redis with 8gb (redis.maxMemory)",
    ),
    "room too small for the file, without a volume": (
        {"redis": {"persistence": {"enabled": False, "size": "1535Mi"}}},
        "raise the size, or lower redis.maxMemory",
    ),
    "as much memory as the limit": (
        {"redis": {"maxMemory": "1gb", "resources": {"limits": {"memory": "1Gi"}}}},
        "let the limit be twice as much",
    ),
    **REFUSED_STORAGE,
    # pools
    "pools of one name": (
        {"pools": [{"name": "p", "model": "a"}, {"name": "p", "model": "b"}]},
        "Two pools are named p: rename one",
    ),
    "a pool with a name of the chart's own": (
        {"pools": [{"name": "flower", "model": "dnabert_s"}]},
        "choose another than keeper, flower, redis, store, weights and secrets",
    ),
    "an image that every node would pull": (
        {"prePull": {"enabled": True}, **pool(affinity={"podAffinity": {}})},
        "Pool p may be on any node, and prePull would have every node of the cluster pull",
    ),
    "a pool without a model": ({"pools": [{"name": "p"}]}, "Pool p has no model: set its model"),
    "more pods at least than at most": (
        pool(replicas={"min": 5}),
        "Pool p: replicas.min is 5, and replicas.max 4: give a max that is not smaller",
    ),
    "no pods": (
        pool(replicas={"max": 0}),
        "Pool p: replicas.max is 0, so that it would never have a pod",
    ),
    "FP16 on the CPU": (
        pool(precision="fp16", gpu={"count": 0}),
        "Pool p: precision is fp16, with which CPUs are 35 to 175 times slower",
    ),
    "a claim of no GPU": (
        pool(gpu={"count": 0, "claimTemplate": "gpus"}),
        "Pool p: gpu.count is 0, but gpu.claimTemplate is given",
    ),
    "memory of no GPU": (
        pool(gpu={"count": 0, "memory": 8}),
        "Pool p: gpu.count is 0, but gpu.memory is given",
    ),
    "GPUs by a claim and by a resource": (
        pool(gpu={"claimTemplate": "gpus", "resource": "nvidia.com/mig-1g.10gb"}),
        "Pool p: gpu.claimTemplate asks for GPUs in place of gpu.resource",
    ),
    "several parts of a GPU": (
        pool(gpu={"count": 2, "resource": "nvidia.com/mig-1g.10gb"}),
        "Pool p: gpu.count is 2, but a worker uses one part of a GPU (nvidia.com/mig-1g.10gb)",
    ),
    "GPUs among the resources": (
        pool(resources={"limits": {GPU: 2}}),
        "Pool p: resources.limits has nvidia.com/gpu: set the number of GPUs by gpu.count alone",
    ),
    "too little time to requeue": (
        pool(terminationGracePeriodSeconds=30),
        "Pool p: terminationGracePeriodSeconds is 30, but a worker takes up to 40 s",
    ),
    "a pause of what does not scale": (
        pool(paused=True, replicas={"min": 4}),
        "Pool p is paused, but nothing scales it",
    ),
    "two pools that scale by one demand": (
        two_pools({}, {"spot": True}),
        "Pools a and b have the same model, revision and precision, and both scale",
    ),
    "two such pools, one of which says its precision": (
        two_pools({"precision": "fp16"}, {"precision": "auto"}),
        "Give one of them a fixed number of pods",
    ),
    "no pod under a HorizontalPodAutoscaler": (
        {"autoscaling": {"mode": "hpa"}},
        "replicas.min is 0, to which a HorizontalPodAutoscaler never scales",
    ),
    # Flower
    "two ways to Flower": (
        {
            "flower": {
                "ingress": {"enabled": True, "host": "f.example"},
                "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]},
            }
        },
        "flower.ingress and flower.httpRoute are both enabled: disable one",
    ),
    "an ingress without Flower": (
        {"flower": {"enabled": False, "ingress": {"enabled": True, "host": "f.example"}}},
        "flower.ingress is enabled, but flower.enabled is false",
    ),
    "a route without Flower": (
        {"flower": {"enabled": False, "httpRoute": {"enabled": True, "parentRefs": [{}]}}},
        "flower.httpRoute is enabled, but flower.enabled is false",
    ),
    "an ingress for every name": (
        {"flower": {"ingress": {"enabled": True}}},
        "flower.ingress.enabled needs flower.ingress.host",
    ),
    "a route of no gateway": (
        {"flower": {"httpRoute": {"enabled": True}}},
        "name it in flower.httpRoute.parentRefs",
    ),
    # submissions
    "submissions of one name": (
        {"submissions": [{"name": "s", "input": "s3://b/1"}, {"name": "s", "input": "s3://b/2"}]},
        "Two submissions are named s: rename one",
    ),
    "a submission with too long a name": (
        {"fullnameOverride": "f" * 40, **submission(name="twelve-chars")},
        "has 53 characters, and may have 52: shorten it, or set fullnameOverride",
    ),
    "a submission with a pool and a model": (
        submission(pool="esm2-650m", model="dnabert_s"),
        "Submission s has a pool and a model: leave one out",
    ),
    "a submission for no pool": (
        submission(pool="other"),
        "Submission s: there is no pool other: name one of esm2-650m",
    ),
    "an output that is a folder": (
        submission(output="s3://bucket/out/"),
        "name a file that ends with .h5 or .hdf5",
    ),
    "an output that would be lost": (
        submission(output="/out/embeddings.h5"),
        "Submission s: output is /out/embeddings.h5, but its pod has no volume",
    ),
    "an input that is not there": (
        submission(input="/in/proteins.fasta"),
        "Submission s: input is /in/proteins.fasta, but its pod has no volume",
    ),
    # names, images, accounts, variables
    "a name that a Service cannot have": (
        {"fullnameOverride": "2fleet"},
        "a Service's begins with a letter and has only letters, digits and hyphens",
    ),
    "a name with dots": ({"fullnameOverride": "fleet.prod"}, "set fullnameOverride"),
    "a label that selects": (
        {"commonLabels": {"app.kubernetes.io/component": "mine"}},
        "commonLabels has app.kubernetes.io/component, a label that the chart sets itself",
    ),
    "a pool's label that selects": (
        pool(podLabels={"virnucpro/pool": "q"}),
        "Pool p: podLabels has virnucpro/pool, a label that the chart sets itself",
    ),
    "a registry with a scheme": (
        {"images": {"registry": "https://registry.example/team"}},
        "images.registry is https://registry.example/team: leave https:// out",
    ),
    "a tag in a repository": (
        {"images": {"producer": {"repository": "registry.example:5000/producer:1"}}},
        "write what follows the name as images.producer.tag or images.producer.digest",
    ),
    "a digest in a pool's repository": (
        pool(image={"repository": "worker@sha256:0"}),
        "write what follows the name as Pool p: image.tag",
    ),
    "annotations of an account that is not made": (
        {"serviceAccount": {"create": False, "annotations": {"a/b": "c"}}},
        "serviceAccount.create is false: annotate the account itself",
    ),
    "a variable of another value": (
        {"keeper": {"extraEnv": variable("VIRNUCPRO_BROKER_URL")}},
        "keeper.extraEnv has VIRNUCPRO_BROKER_URL: set it by redis or externalRedis",
    ),
    "a variable of the chart's own": (
        pool(extraEnv=variable("VIRNUCPRO_METRICS")),
        "Pool p: extraEnv has VIRNUCPRO_METRICS, which the chart sets itself",
    ),
    "such a variable of submissions": (
        {"submission": {"extraEnv": variable("VIRNUCPRO_OWNER")}},
        "submission.extraEnv has VIRNUCPRO_OWNER, which the chart sets itself",
    ),
    "such a variable of all pools": (
        {"poolDefaults": {"extraEnv": variable("HF_TOKEN")}},
        "poolDefaults.extraEnv has HF_TOKEN: set it by weights.hub.tokenSecret",
    ),
}
