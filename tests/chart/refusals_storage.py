"""Values of stores and weights that do not fit together, and what the chart says of them."""

from tests.chart.parts import NODE, ONE_NODE, ONE_NODE_WEIGHTS, S3, pool
from tests.support.chart import Values

#: As ``refusals.REFUSED``.
REFUSED_STORAGE: dict[str, tuple[Values, str]] = {
    # store
    "S3 for nothing": (
        {"store": {"s3": {"existingSecret": "keys"}}},
        "nothing is in one: set store.url to s3://bucket/prefix, or leave store.s3 out",
    ),
    "two sources of credentials": (
        {"store": {**S3, "s3": {"existingSecret": "keys", "webIdentity": {"roleArn": "r"}}}},
        "two sources of credentials: leave one out",
    ),
    "two roles": (
        {
            "store": {**S3, "s3": {"webIdentity": {"roleArn": "r"}}},
            "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "r"}},
        },
        "both name a role: leave one out",
    ),
    "a volume beside a bucket": (
        {"store": {**S3, "volume": {"existingClaim": "jobs"}}},
        "leave store.volume out, or store.url empty",
    ),
    "a volume of one node for one keeper and one worker, which may be on two": (
        {
            "store": ONE_NODE,
            "keeper": {"replicas": 1},
            **pool(replicas={"max": 1}),
        },
        "set ReadWriteMany, put the store into a bucket (store.url), or name that node",
    ),
    "a volume of one node for submissions on any": (
        {"store": ONE_NODE, "keeper": NODE, **pool(**NODE)},
        "in keeper.nodeSelector, submission.nodeSelector and the nodeSelector of every pool",
    ),
    "a volume of one node for keepers on another": (
        {
            "store": ONE_NODE,
            "keeper": {"nodeSelector": {"kubernetes.io/hostname": "node-2"}},
            "submission": NODE,
            **pool(**NODE),
        },
        "only pods of one node share",
    ),
    "a volume that nobody may write": (
        {"store": {"volume": {"accessModes": ["ReadOnlyMany"]}}},
        "all write the store: set ReadWriteMany",
    ),
    # weights
    "a volume of weights that no pool reads": (
        {"weights": {"volume": {"existingClaim": "weights"}}},
        "set weights.source to volume, or leave the claim out",
    ),
    "an empty volume of weights": (
        {"weights": {"source": "volume", "volume": {"fill": False}}},
        "name its claim in weights.volume.existingClaim, or have it filled",
    ),
    "a volume of weights of one node for several": (
        {"weights": ONE_NODE_WEIGHTS, "submission": NODE},
        "set ReadWriteMany, set weights.source to download, or name that node",
    ),
    "a volume of weights of one node, filled on any": (
        {"weights": ONE_NODE_WEIGHTS, **pool(**NODE)},
        "and, for the hook that fills it, in submission.nodeSelector",
    ),
    "more weights than may be in a pod": (
        pool(model="facebook/esm2_t48_15B_UR50D@main"),
        "take 61 GB, and may take 20Gi in a pod, which would be evicted and begin anew: "
        "set weightsSizeLimit to 65Gi or more",
    ),
    "more weights than the volume has room for": (
        {
            "weights": {"source": "volume", "volume": {"size": "64Gi"}},
            "pools": [
                {"name": "a", "model": "esm2_t48_15B_UR50D"},
                {"name": "b", "model": "esm2_t36_3B_UR50D"},
            ],
        },
        "the weights of esm2_t48_15B_UR50D, esm2_t36_3B_UR50D take 72.5 GB: set 77Gi or more",
    ),
    "more weights than a CPU's pod has memory for": (
        pool(model="random:esm2_t48_15B_UR50D", gpu={"count": 0}),
        "take 61 GB of memory (fp32, without a GPU), and resources.limits.memory is 16Gi",
    ),
    "a volume of weights that cannot be filled": (
        {"weights": {"source": "volume", "volume": {"accessModes": ["ReadOnlyMany"]}}},
        "the hook that fills the volume writes: set ReadWriteMany",
    ),
}
