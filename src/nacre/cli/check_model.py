"""`nacre check-model`."""

import dataclasses
import json
from collections.abc import Sequence

from nacre.cli import flags
from nacre.contract import check_model
from nacre.spec import Field, fields, find_class

OWN = [
    Field("shape", tuple[int, ...], (1, 16, 16), "shape of the items to build it for"),
    Field(
        "backend", str, "aot_eager", "what torch.compile uses in the comparison with eager execution; also 'inductor'"
    ),
    Field("json", bool, False, "print the findings as JSON"),
]


def main(argv: Sequence[str]) -> int:
    """Check a model against the contract."""
    parser = flags.parser("check-model", "Check a model of your own against the contract.", "FILE.py:CLASS [flags]")
    parser.add_argument("model", help="FILE.py:CLASS, or a name of the catalogue")
    own = fields(find_class(argv[0])) if argv and not argv[0].startswith("-") else []
    own = [field for field in own if field.name not in {mine.name for mine in OWN}]  # the check itself names these
    flags.add(parser, "check", OWN)
    flags.add(parser, "parameters of the model", own)
    parsed = flags.parse(parser, argv)
    given = {name: value for name, value in flags.given(parsed, OWN).items() if name != "json"}
    findings = check_model(parsed.model, flags.given(parsed, own), **given)
    if parsed.json:
        listed = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"schema_version": 1, "model": parsed.model, "findings": listed}))
    else:
        for finding in findings:
            mark = {True: "ok", False: "FAILED", None: "n/a"}[finding.passed]
            print(f"{mark:>6}  {finding.name}" + (f" ({finding.detail})" if finding.detail else ""))
    failed = sum(finding.passed is False for finding in findings)
    return 1 if failed else 0
