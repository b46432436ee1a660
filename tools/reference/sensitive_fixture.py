"""Writes a text encoder that rounding moves far, with its trace: `python sensitive_fixture.py
../../diffusion/tests/fixtures`.

T5's attention is not scaled. With queries that are larger than usual a softmax comes near to
choosing one position, and the reference itself, in f32, is 2e-5 from what it computes in f64: a
flat tolerance either fails it or is too wide for others.
"""

import copy
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cascades import CASCADES
from make_traces import record_text
from networks import make_text_encoder, make_tokenizer

LAYERS = 6
QUERIES = 12.0


def main(root):
    root = root / "sensitive"
    cascade = CASCADES["odd"]
    tokenizer = make_tokenizer(root / "tokenizer", cascade["length"])
    options = {"d_model": 32, "d_kv": 16, "d_ff": 40, "num_layers": LAYERS, "num_heads": 2}
    encoder = make_text_encoder(root / "text_encoder", options, tokenizer.get_vocab_size() + 5, seed=9, whole=False)
    with torch.no_grad():
        for name, p in encoder.named_parameters():
            if name.endswith("SelfAttention.q.weight"):
                p.mul_(QUERIES)
    state = {name: tensor.clone().contiguous() for name, tensor in encoder.state_dict().items()}
    state.pop("encoder.embed_tokens.weight", None)
    save_file(state, str(root / "text_encoder" / "model.safetensors"), metadata={"format": "pt"})
    trace = root / "text_encoder.trace.safetensors"
    record_text(tokenizer, encoder, cascade, trace, missing=False)
    recorded = load_file(str(trace))
    with torch.no_grad():
        exact = copy.deepcopy(encoder).double()(
            input_ids=recorded["negative.input_ids"], attention_mask=recorded["negative.attention_mask"]).last_hidden_state
    off = (recorded["negative.embeddings"].double() - exact).abs().max().item()
    print(f"the reference is {off:.1e} from f64, of {exact.abs().max().item():.1f} at most")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
