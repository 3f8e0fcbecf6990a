"""What there is to choose from; imports nothing, so that configs are checked against it."""

PROGRAMS = ("resnet50", "vit-tiny")
FRAMEWORKS = ("torch", "torch-compile", "onnxruntime", "jax", "tensorflow", "numpy")
PRECISIONS = ("fp32", "fp16", "bf16")
