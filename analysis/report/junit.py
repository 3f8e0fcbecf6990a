"""A report as JUnit XML: a CI lists each comparison and each check as a test.

=================  ==========================  ==============================  =============================
suite ``energy``   fails                       is skipped                      passes
=================  ==========================  ==============================  =============================
``verdict``        no image can be named best                                  one can; decided or not
an image           it was shown to need more   the comparison is undecided,    it needs less, as much, or a
                   than the reference          or there is none                difference inside the margin
=================  ==========================  ==============================  =============================

In the suite ``checks`` a code fails where it was found as an error, as the command's exit code does, and is
skipped where it could not be decided. The structure is that of the schema of Jenkins' xUnit plugin.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as ET

from wattbench.analysis.model.escaping import one_line
from wattbench.analysis.model.finding_codes import CODES, Verdict
from wattbench.analysis.presentation.findings import Group, groups
from wattbench.analysis.presentation.formatting import sentence
from wattbench.analysis.report import answer
from wattbench.analysis.report.study import Study
from wattbench.analysis.stats.results import PairVerdict, RankedImage


def junit(done: Study) -> str:
    """The comparisons and checks of a report as one XML document."""
    suites = (
        _suite("energy", done, _comparisons(done)),
        _suite("checks", done, _checks(done)),
    )
    root = ET.Element("testsuites", {"name": "wattbench", **_counts(suites)})
    root.extend(suites)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _suite(name: str, done: Study, cases: Iterable[ET.Element]) -> ET.Element:
    suite = ET.Element("testsuite", {"name": name})
    facts = {"run_id": done.data.run_id, "reference": done.conclusion.reference or ""}
    if done.mark:
        facts["energy"] = done.mark.strip()
    properties = ET.SubElement(suite, "properties")
    for key, value in facts.items():
        ET.SubElement(properties, "property", {"name": key, "value": one_line(value)})
    suite.extend(cases)
    suite.attrib |= _counts((suite,))
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    return suite


def _counts(suites: Iterable[ET.Element]) -> dict[str, str]:
    found = [case for suite in suites for case in suite.iter("testcase")]
    failed = [case for case in found if case.find("failure") is not None]
    return {"tests": str(len(found)), "failures": str(len(failed)), "errors": "0"}


def _case(suite: str, name: str, outcome: str, message: str, kind: str = "") -> ET.Element:
    """A test case.

    Args:
        suite: which class a CI lists it under.
        name: what was tested.
        outcome: ``failure``, ``skipped``; ``system-out``: it passes.
        message: what was seen.
        kind: of the failure.
    """
    case = ET.Element(
        "testcase", {"classname": f"wattbench.{suite}", "name": one_line(name), "time": "0"}
    )
    result = ET.SubElement(case, outcome)
    lines = [one_line(line) for line in message.splitlines()]
    result.text = "\n".join(lines)
    if outcome != "system-out":
        result.set("message", lines[0] if lines else "")
    if kind:
        result.set("type", kind)
    return case


def _comparisons(done: Study) -> Iterable[ET.Element]:
    conclusion, head = done.conclusion, done.conclusion.headline
    outcome = "failure" if head.best is None else "system-out"
    said = "\n".join(filter(None, (head.sentence, head.conditions)))
    yield _case("energy", "verdict", outcome, said, "no-verdict" if head.best is None else "")
    bars = answer.ranking(conclusion, done.looks).bars
    for row, bar in zip(conclusion.ranking, bars, strict=True):
        if row.is_reference:
            continue
        numbers = f"{bar.estimate} energy against {conclusion.reference}, {bar.interval}"
        text = ": ".join(filter(None, (bar.entry.verdict, bar.entry.detail)))
        outcome = _outcome(row)
        kind = bar.entry.verdict if outcome == "failure" else ""
        said = f"{text}; {numbers}" if row.pair else text
        yield _case("energy", row.image, outcome, said + done.mark, kind)


def _outcome(row: RankedImage) -> str:
    if row.pair is None or row.pair.verdict is PairVerdict.UNDECIDED:
        return "skipped"
    is_more = row.pair.verdict is PairVerdict.MORE and not row.pair.within_margin
    return "failure" if is_more else "system-out"


def _checks(done: Study) -> Iterable[ET.Element]:
    by_code: dict[str, dict[Verdict, list[Group]]] = {}
    for verdict in Verdict:
        for group in groups(done.findings, verdict):
            by_code.setdefault(group.code, {}).setdefault(verdict, []).append(group)
    for code in CODES:
        if code in by_code:
            yield _check(code, by_code[code])


def _check(code: str, found: dict[Verdict, list[Group]]) -> ET.Element:
    seen = found.get(Verdict.FOUND, [])
    lines = [
        f"{g.severity}: {text} {' '.join(map(sentence, g.actions))}"
        for g in seen
        for text, _ in g.links
    ]
    if any(g.severity == "error" for g in seen):
        return _case("checks", code, "failure", "\n".join(lines), "error")
    unknown = [text for g in found.get(Verdict.UNDECIDABLE, []) for text, _ in g.links]
    if unknown and not seen:
        return _case("checks", code, "skipped", "\n".join(("could not be decided", *unknown)))
    return _case("checks", code, "system-out", "\n".join(lines) or "not found")
