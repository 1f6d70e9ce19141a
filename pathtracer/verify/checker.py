"""`check_gradients`: every motion with every estimator, and what to use where one fails."""

from __future__ import annotations

import gc
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from integrators import ESTIMATORS, PHENOMENA
from integrators.errors import GradientWarning
from pathtracer.errors import UsageError

from .check import compare
from .comparison import Comparison, Settings
from .reference import Reference, reference_folder
from .statistics import Verdict
from .subject import REFERENCE, Subject, choose_estimators, choose_motions, load_estimator, resized, subject_of
from .terms import diagnose

#: (what begins: motion and estimator) or (what ended: the comparison)
Progress = Callable[[str, Comparison | None], None]


@dataclass
class CheckReport:
    """What a check found.

    Attributes:
        comparisons: one for each motion and estimator, in the order asked for.
        settings: how strict the check was.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    settings: Settings = field(default_factory=Settings)

    @property
    def passed(self) -> bool:
        """Whether every comparison passed."""
        return all(c.verdict is Verdict.PASS for c in self.comparisons)

    @property
    def unexpected(self) -> list[Comparison]:
        """Comparisons that came out otherwise than the catalogue says."""
        return [c for c in self.comparisons if c.as_expected is False]

    @property
    def exit_code(self) -> int:
        """0 all pass (or are as expected), 1 some fail, 6 some inconclusive, 2 nothing was checked: all refused."""
        judged = [c for c in self.comparisons if not c.as_expected]
        verdicts = {c.verdict for c in judged}
        if Verdict.FAIL in verdicts or any(c.verdict is not Verdict.INCONCLUSIVE for c in self.unexpected):
            return 1
        if Verdict.INCONCLUSIVE in verdicts:
            return 6
        return 2 if judged == self.comparisons and verdicts == {Verdict.UNSUPPORTED} else 0

    def summary(self) -> str:
        """How many comparisons had which verdict, in a sentence."""
        counts = Counter(str(c.verdict) for c in self.comparisons)
        parts = [f"{counts[str(v)]} {v}" for v in Verdict if counts[str(v)]]
        words = f"{len(self.comparisons)} comparison{'s' * (len(self.comparisons) != 1)}: {', '.join(parts)}"
        known = sum(c.as_expected is not None for c in self.comparisons)
        return f"{words}; {known - len(self.unexpected)} of {known} as expected." if known else f"{words}."

    def to_dict(self) -> dict[str, Any]:
        """Numbers and words, without the images, for JSON."""
        return {
            "settings": asdict(self.settings),
            "comparisons": [comparison_dict(c) for c in self.comparisons],
            "passed": self.passed,
        }

    def _repr_html_(self) -> str:
        from .page import render_table

        return render_table(self)


def comparison_dict(c: Comparison) -> dict[str, Any]:
    """One comparison as plain values."""
    low, high = c.slope_interval()
    catalogue = {"case": c.case, "expected": c.expected, "as_expected": c.as_expected} if c.case else {}
    return {
        **catalogue,
        "motion": c.motion,
        "estimator": c.estimator,
        "verdict": str(c.verdict),
        "slope": c.slope,
        "slope_interval": [low, high],
        "backward": c.backward,
        "worst_block": c.worst_block,
        "reason": c.reason,
        "remedy": c.remedy,
        "terms": c.terms,
        "spp": c.spp,
        "reference_spp": c.reference_spp,
        "epsilon": c.epsilon,
        "seconds": c.seconds,
        "notes": c.notes,
        "decisive": [t.name for t in c.decisive],
        "tests": [asdict(t) for t in c.tests if not t.name.startswith("block")],
    }


def check_gradients(
    scene: Any,
    motions: Any,
    estimators: Any = None,
    *,
    tolerance: float = 0.03,
    confidence: float = 0.95,
    budget: float = 60.0,
    sensor: int = 0,
    seed: int = 0,
    backward: bool = True,
    cache: bool | Path = True,
    diagnosis: bool = True,
    progress: Progress | None = None,
    **settings: Any,
) -> CheckReport:
    """Compare gradient estimators with finite differences.

    Args:
        scene: a `Scene`, a `mi.Scene` (loaded with `optimize=False`), a path or a Mitsuba dictionary.
        motions: `"KEY"`, `"KEY translate:x"`, `"KEY rotate:y + OTHER translate:y"`, globs, `Motion`s, or a list of
        these.
        estimators: plugin names (also Mitsuba's own, also `name:property=value`), integrators, "all", or None for the
            unbiased estimator that handles most.
        tolerance: relative error that counts as none.
        confidence: of each verdict, corrected for the number of comparisons.
        budget: seconds for each motion and estimator; then the verdict is "inconclusive".
        sensor: index of the camera.
        seed: of everything.
        backward: whether to check the backward mode and its consistency with the forward mode.
        cache: keep references on disk (True: in the user's cache folder).
        diagnosis: on failure, look which term is wrong.
        progress: called with what begins, and with each result.
        settings: further fields of `Settings`.

    Raises:
        UsageError: unknown key, motion or estimator.
    """
    chosen = Settings(tolerance, confidence=confidence, budget=budget, backward=backward, seed=seed, **settings)
    if not 0 < tolerance < 1 or not 0 < confidence < 1:
        raise UsageError("tolerance and confidence are fractions between 0 and 1")
    gc.collect()  # virtual calls look at every object of the process, attached ones of dead scenes too
    subject = subject_of(scene, sensor)
    moves = choose_motions(subject, motions)
    subject = _as_float(subject, [key for move in moves for key in move.keys], sensor)
    specs = choose_estimators(estimators)
    loaded = [(*load_estimator(subject, spec), spec) for spec in specs]
    folder = reference_folder() if cache is True else (cache or None)
    report = CheckReport(settings=chosen)
    families = len(moves) * len(specs)
    with resized(subject.sensor, chosen.resolution) as shrunk:
        for move in moves:
            bound = move.bind(subject.scene, subject.params)
            if progress:
                progress(f"{bound.motion}: finite differences", None)
            with _quiet():
                reference = Reference(bound, subject.sensor, subject.base(), chosen.reference_replicates, seed, folder)
                rows = []
                for name, estimator, spec in loaded:
                    if progress:
                        progress(f"{bound.motion}: {name}", None)
                    row = compare(bound, subject.sensor, estimator, name, reference, chosen, families)
                    if row.verdict is Verdict.FAIL and row.spp and diagnosis and not isinstance(spec, type(estimator)):
                        _explain(row, subject, bound, spec, reference)
                    row.notes += [shrunk] if shrunk else []
                    if subject.unchecked:
                        row.notes.append(f"not checked: the aovs {', '.join(subject.unchecked)}, without a derivative")
                    rows.append(row)
                    if progress:
                        progress("", row)
            for row in rows:
                if row.verdict in (Verdict.FAIL, Verdict.UNSUPPORTED):
                    row.remedy = _remedy(row, rows, subject, move.keys)
            report.comparisons += rows
    return report


def _as_float(subject: Subject, keys: Sequence[str], sensor: int) -> Subject:
    """Reload 8-bit textures that are moved as float."""
    owner = subject.owner
    if owner is None:
        return subject
    infos = owner.parameters()
    stored = [key for key in keys if key in infos and infos[key].stored]
    for key in stored:
        owner.make_differentiable(key)
    return subject_of(owner, sensor) if stored else subject


def _explain(row: Comparison, subject: Subject, bound: Any, spec: Any, reference: Reference) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)  # said once already, by the comparison
        found = diagnose(subject, bound, spec, reference, row.spp)
    if found is None:
        return
    row.terms = found.factors
    sentence = found.sentence()
    if sentence:
        row.reason += f"; {sentence}"


def _remedy(row: Comparison, rows: Sequence[Comparison], subject: Subject, keys: Sequence[str]) -> str:
    """What to use instead: what passed here, else what the table says can do it."""
    passing = [other.estimator for other in rows if other.verdict is Verdict.PASS]
    if passing:
        return f"use {passing[0]}, which passes here"
    tried = {other.estimator for other in rows}
    needs = set(PHENOMENA)
    if subject.owner is not None:
        infos = subject.owner.parameters()
        needs = set().union(*(infos[key].needs for key in keys if key in infos)) or needs
    if subject.aovs:
        needs |= {"aovs"}
    able = [e.name for e in ESTIMATORS.values() if needs <= e.handles and e.name not in tried and e.name != REFERENCE]
    if able:
        return f"use {able[0]}, which accounts for {', '.join(sorted(needs))}"
    return f"use {REFERENCE}"


class _quiet:
    """Mitsuba's own warnings are about how it would do it; the check says what comes out."""

    def __enter__(self) -> None:
        import mitsuba as mi

        self.level = mi.log_level()
        mi.set_log_level(mi.LogLevel.Error)

    def __exit__(self, *_: object) -> None:
        import mitsuba as mi

        mi.set_log_level(self.level)
