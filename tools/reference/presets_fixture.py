"""Writes the timestep lists of DeepFloyd IF's presets as diffusers has them: `python
presets_fixture.py ../../core/tests/fixtures`."""

import json
import sys
from pathlib import Path

from diffusers.pipelines.deepfloyd_if import timesteps

SUFFIX = "_timesteps"


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    lists = {name.removesuffix(SUFFIX): value for name, value in vars(timesteps).items() if name.endswith(SUFFIX)}
    lines = [f" {json.dumps(name)}: {json.dumps(lists[name])}" for name in sorted(lists)]
    (folder / "if_presets.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
