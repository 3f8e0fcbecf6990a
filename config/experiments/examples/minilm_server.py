"""Names the topic that a text is closest to by embeddings of all-MiniLM-L6-v2; `embed` is the image's own."""

from pathlib import Path

import numpy as np
from embedder import embed
from fastapi import FastAPI
from pydantic import BaseModel
from tokenizers import Tokenizer

TOPICS = {
    "billing": "A question about an invoice, a payment or a refund.",
    "delivery": "A parcel that is late, lost or sent to the wrong address.",
    "account": "Problems with logging in, a password or an account.",
    "defect": "A product that is broken or doesn't work.",
    "advice": "A customer asks which product to buy.",
}


class Text(BaseModel):
    """What is asked."""

    text: str


tokenizer = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))
tokenizer.no_padding()
tokenizer.enable_truncation(256)
topics = np.stack([embed(tokenizer.encode(text).ids) for text in TOPICS.values()])
app = FastAPI()


@app.get("/health")
def health() -> dict[str, str]:
    """Answered once the model is loaded."""
    return {"status": "ok"}


@app.post("/closest")
def closest(text: Text) -> dict[str, object]:
    """The topic, and the cosine of the angle to it."""
    similar = topics @ embed(tokenizer.encode(text.text).ids)
    best = int(similar.argmax())
    return {"topic": list(TOPICS)[best], "similarity": round(float(similar[best]), 4)}
