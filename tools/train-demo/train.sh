#!/bin/sh
# Trains the demo cascade; see README.md. Low priority, so that the machine stays usable; options go
# to train.py.
set -eu
cd "$(dirname "$0")/../.."
python="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
exec nice -n 5 "$python" tools/train-demo/train.py "$@"
