"""The parser alone, in this process: what its developers measure with."""

from collections.abc import Sequence

from bench.corpus.marks import Case, Judged, Passage
from bench.corpus.words import as_sent
from contactd.mail.parsing import parse


class Direct:
    async def run(self, cases: Sequence[Case]) -> tuple[list[Judged], Passage]:
        """Judge every mail, with the line ends that SMTP would give it."""
        judged = [_judged(case) for case in cases]
        count = len(cases)
        return judged, Passage(sent=count, spooled=count, parsed=count)


def _judged(case: Case) -> Judged:
    try:
        mail = parse(as_sent(case.raw))
    except Exception as error:  # the parser promises to raise nothing: show that it did
        return Judged(name=case.name, lost=f"raised {type(error).__name__}: {error}")
    return Judged(name=case.name, judgement=case.judge(mail))
