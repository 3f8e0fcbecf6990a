"""Where the published study's data lie in this repository."""

from pathlib import Path

STUDY = Path(__file__).parents[1] / "reference" / "study"

#: The authors' derived tables, one per image and kind.
PUBLISHED = STUDY / "preprocessed_results"

#: Nine trials as raw logs with their text logs.
SAMPLE = STUDY / "sample_campaign"
