#!/usr/bin/env bash
# What an accelerator is asked, in one go: about 8 minutes on an H100 or H200, with what an image of PyTorch has and no network.
#
#   bash benchmarks/gpu.sh --images path/to/cifar10 --out gpu.json      on a machine with an accelerator
#   bash benchmarks/gpu.sh --device cpu --quick --out gpu.json          without one: whether the script works, a minute
#
# Packages that the image lacks come as wheels in the folder WHEELS names, if it is set: optuna and its alembic, mako, colorlog, sqlalchemy, greenlet;
# pydantic, pydantic-core, annotated-types, typing-inspection; lightly and its lightly-utils, hydra-core, omegaconf, antlr4-python3-runtime, aenum; and
# timm, torch, torchvision where they are older than pyproject.toml asks for. `pip download --no-deps -d DIR NAME...` fetches them elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
if [ -n "${WHEELS:-}" ]; then
    site=$(mktemp -d)
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$WHEELS"/*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "$PYTHON" benchmarks/gpu.py "$@"
