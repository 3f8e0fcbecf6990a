"""Writes the torch model as ONNX: `export.py model.safetensors model.onnx`."""

import sys

import torch
from minilm import MiniLM

weights, out = sys.argv[1:]
with torch.inference_mode():
    torch.onnx.export(
        MiniLM(weights).eval(), (torch.tensor([[101, 2023, 102]]),), out, input_names=["ids"],
        output_names=["embedding"], dynamic_axes={"ids": {1: "length"}}, dynamo=False,
    )  # fmt: skip
