"""The question that an audit answers, in one sentence: can these numbers be believed?"""

from __future__ import annotations

import re

from wattbench.analysis.audit.result import Audit
from wattbench.analysis.presentation.formatting import count, listed, number

#: Words of a run's report for what an imported campaign calls otherwise.
_IMAGE = re.compile(r"(?<![-_/\w])(an? )?(image)(s?)(?![-_/\w])", re.IGNORECASE)


def sentence(result: Audit) -> str:
    """Whether the numbers can be believed, and what stands against it."""
    errors = [f for f in result.findings if f.is_found_error]
    subjects = {r.subject for r in result.trials}
    rows = sum(f.code == "row-untraceable" for f in errors)
    about_all = [f for f in errors if f.subject not in subjects and f.code != "row-untraceable"]
    whole = sorted({f.code for f in about_all})
    measured = [r for r in result.trials if not r.log.get("derived")]
    valid = sum(r.row.status == "valid" for r in measured)
    treatments = len(result.treatments)
    if not measured:
        published = count(len(result.campaign.derived), "published row")
        usable = f"{published} of {count(treatments, 'treatment')} come without any raw file"
    else:
        runs = f"{number(valid, 0)} of {count(len(measured), 'run')}"
        usable = f"{runs} of {count(treatments, 'treatment')} can be used"
    if not errors:
        start = "Yes, as far as the files show" if measured else "The files do not show it"
        return f"{start}: {usable}, and no error was found."
    against = []
    if whole:
        against.append(f"the whole campaign has {count(len(whole), 'fault')} ({', '.join(whole)})")
    if rows:
        against.append(
            f"{count(rows, 'published row is impossible or has', 'published rows are impossible or have')} "
            "no source"
        )
    faulty = len(measured) - valid
    if faulty:
        against.append(f"{count(faulty, 'run is', 'runs are')} faulty or missing")
    return f"Not as they stand: {listed(against) or 'errors were found'}; {usable}."


def in_their_words(text: str) -> str:
    """A sentence of the statistics in the words of an imported campaign, which has treatments."""
    return _IMAGE.sub(_treatment, text)


def _treatment(match: re.Match[str]) -> str:
    article, word, plural = match[1] or "", match[2], match[3]
    named = "Treatment" if word[0].isupper() else "treatment"
    return f"{article[:1]} {named}{plural}" if article else named + plural
