"""Counts the words of documents and compresses them: `stock-or-slim.py NUMBER`."""

import hashlib
import random
import sys
import zlib
from collections import Counter

number = int(sys.argv[1])
draw = random.Random(1)
words = ["".join(draw.choices("aeioulnrst", k=draw.randint(2, 9))) for _ in range(3000)]
documents = [" ".join(draw.choices(words, k=400)) for _ in range(number)]
print("documents written", flush=True)

counts: Counter[str] = Counter()
size = 0
for document in documents:
    counts.update(document.split())
    size += len(zlib.decompress(zlib.compress(document.encode(), 6)))
common = repr((size, sorted(counts.items())))
print(f"processed {number} documents, checksum {hashlib.sha256(common.encode()).hexdigest()}")
