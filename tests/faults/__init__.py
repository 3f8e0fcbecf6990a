"""The matrix of fault × phase: what is injected when, the outcomes so far, the page made of them."""
