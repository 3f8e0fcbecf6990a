"""trials.parquet: trial rows with the facts that later comparisons need."""

from __future__ import annotations

import io
import json

from wattbench.analysis.model import host_facts
from wattbench.analysis.model.run_document import LastingDocument
from wattbench.analysis.model.trials import SCHEMA_VERSION
from wattbench.analysis.runs.assemble import RunData

#: The key of the run's facts in the metadata of ``trials.parquet``.
PARQUET_FACTS = b"wattbench"


# trials.parquet ----------------------------------------------------------------------------------


def parquet_bytes(data: RunData) -> bytes:
    """``trials.parquet``: the trials' rows, and the run's facts in the file's own metadata.

    One object holds all that comparing runs over months needs.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(data.trials, preserve_index=False)
    facts = json.dumps(_lasting(data), sort_keys=True, ensure_ascii=False).encode()
    # pandas' own metadata would only repeat the types.
    table = table.replace_schema_metadata({PARQUET_FACTS: facts})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _lasting(data: RunData) -> LastingDocument:
    return {
        "schema": SCHEMA_VERSION,
        "run_id": data.run_id,
        "dag_id": data.document.get("dag_id"),
        "run_after": data.document.get("run_after"),
        "reference": data.experiment.get("reference"),
        "digests": {name: image.get("digest") for name, image in data.images.items()},
        "hosts": {host: host_facts.lasting(data.facts(host)) for host in data.hosts},
        "versions": data.document.get("versions", {}),
    }
