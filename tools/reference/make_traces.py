"""Writes the fixture cascades and their traces.

    python make_traces.py ../../diffusion/tests/fixtures

The trace format is that of `darkroom model check`; see README.md here. Everything is seeded, so a
run with the pinned requirements on the same kind of machine writes the same files.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file

from cascades import CASCADES, NOISING
from networks import make_text_encoder, make_tokenizer, make_unet
from pipelines import record_pipeline
from recording import record, sensitivity


OPTIONAL = ("noise_level", "eta", "spacing", "guidance_schedule", "thresholding")


def write(path, tensors, metadata):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(path), metadata=metadata)


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


@torch.no_grad()
def record_text(tokenizer, encoder, cascade, path, missing):
    if missing and path.exists():
        tensors = load_file(str(path))
        return tensors["embeddings"], tensors["negative.embeddings"]
    tensors = {}
    for key, prefix in (("prompts", ""), ("negative_prompts", "negative.")):
        encodings = tokenizer.encode_batch(cascade[key])
        ids = torch.tensor([e.ids for e in encodings])
        mask = torch.tensor([e.attention_mask for e in encodings])
        states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        tensors |= {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask, f"{prefix}embeddings": states}
    write(path, tensors, {key: json.dumps(cascade[key]) for key in ("prompts", "negative_prompts")})
    return tensors["embeddings"], tensors["negative.embeddings"]


def describe(run, tensors):
    """A run's metadata."""
    metadata = {"sampler": run["sampler"], "steps": str(len(tensors["timesteps"])), "guidance_scale": str(run["guidance_scale"])}
    metadata |= {key: str(run[key]) for key in OPTIONAL if key in run}
    metadata |= {"custom_timesteps": "true"} if "timesteps" in run else {}
    if run["task"] != "text-to-image":
        asked = len(run["timesteps"]) if "timesteps" in run else run["steps"]
        metadata |= {"task": run["task"], "strength": str(run["strength"]), "steps": str(asked)}
    return metadata


def make_cascade(root, cascade, seed, missing):
    tokenizer = make_tokenizer(root / "tokenizer", cascade["length"])
    vocab = tokenizer.get_vocab_size() + 5
    encoder = make_text_encoder(root / "text_encoder", cascade["text"], vocab, seed, whole=seed % 2 == 0)
    text, negative = record_text(tokenizer, encoder, cascade, root / "text_encoder.trace.safetensors", missing)
    low_res = None
    noising = DDPMScheduler.from_config({key: value for key, value in NOISING.items() if not key.startswith("_")})
    for number, (name, stage) in enumerate(cascade["stages"].items()):
        config = stage["scheduler"]
        unet = make_unet(root / name / "unet", stage["unet"], seed * 100 + number, stage.get("dtype", "float32"))
        write_json(root / name / "scheduler" / "scheduler_config.json", config)
        if low_res is not None and stage["unet"].get("in_channels", 6) == 6:
            write_json(root / name / "image_noising_scheduler" / "scheduler_config.json", NOISING)
        result = low_res
        for run in stage["runs"]:
            path = root / f"{name}.{run['name']}.trace.safetensors"
            if missing and path.exists():
                result = load_file(str(path))["output"] if run["task"] == "text-to-image" else result
                continue
            size = run.get("size", stage["size"])
            arguments = (unet, config, run, text, negative, size, low_res, noising, seed * 1000 + number)
            how = record_pipeline if run.get("pipeline") else record
            tensors = how(*arguments)
            moved = sensitivity(how, tensors, arguments)
            if "init_image" in tensors and "timesteps" in run:
                tensors["timesteps.given"] = torch.tensor(run["timesteps"])
            metadata = {"stage": name, "sensitivity": f"{moved:.3e}", **describe(run, tensors)}
            write(path, tensors, metadata)
            print(f"{root.name}/{name}.{run['name']}: timesteps {tensors['timesteps'].tolist()}, sensitivity {moved:.1e}, "
                  f"last sample {tensors['output'].std():.2f}")
            if run["task"] == "text-to-image":
                result = tensors["output"]
        low_res = result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the cascades' folders go")
    parser.add_argument("--only", choices=sorted(CASCADES), help="make one cascade alone")
    parser.add_argument("--missing", action="store_true", help="record only the runs that have no trace yet")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    for seed, (name, cascade) in enumerate(CASCADES.items(), start=1):
        if arguments.only in (None, name):
            make_cascade(arguments.folder / name, cascade, seed, arguments.missing)


if __name__ == "__main__":
    main()
