#!/bin/sh
# Remove what an image does not need from the packages in a virtual environment: about 100 MB.
set -eu
packages=$(echo "$1"/lib/python3.*/site-packages)

# Tests of the packages, and what only builds packages. No package imports those of its own.
find "$packages" -type d -name tests -prune -exec rm -rf {} +
find "$packages" -name conftest.py -delete
rm -rf "$packages/tornado/test" "$packages/numpy/distutils" "$packages/numpy/f2py"

# Descriptions of the services of Amazon: the fleet uses S3, and those that give credentials.
find "$packages/botocore/data" -mindepth 1 -maxdepth 1 -type d \
    ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -rf {} +

# Headers and static libraries: nothing is compiled against the packages. (Triton has its own.)
rm -rf "$packages/torch/include" "$packages/torch/share" "$packages/torch/test"
rm -f "$packages/torch/bin/test_"* "$packages/torch/bin/protoc"*
find "$packages" -name '*.a' -delete
