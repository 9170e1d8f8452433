"""What healing and records of training do not say."""

from __future__ import annotations

from shoal import wording
from shoal.report.bundle import Bundle
from shoal.schema import Healing


def notes(bundle: Bundle) -> list[str]:
    """How little was tried, whether voices are shared, and that losses are no scores."""
    healings = [named.document for named in bundle.healings if named.document.cells]
    found = [note for healing in healings for note in (_tried(healing), _speakers(healing))]
    if (bundle.heals or bundle.trainings) and not bundle.scores and not bundle.healings:
        found.append(
            "Records of training hold losses only: how many words a model gets wrong is not in them."
        )
    return list(dict.fromkeys(note for note in found if note))


def cautions(bundle: Bundle) -> list[str]:
    """What makes the numbers of healing look better than they are."""
    trained_on_test = any(
        named.document.data.fingerprint
        and named.document.data.fingerprint == named.document.train_data.fingerprint
        for named in bundle.healings
    )
    return ["The models were healed on the clips they were tested on."] if trained_on_test else []


def _tried(healing: Healing) -> str:
    data = healing.train_data
    speakers = "" if data.speakers is None else f", {wording.plural(data.speakers, 'speaker')}"
    steps = max((cell.steps for cell in healing.cells), default=0)
    languages = f", {wording.listing(data.languages)}" if data.languages else ""
    return (
        f"Healing was tried on {wording.plural(data.clips, 'clip')} ({wording.duration(data.seconds)}{speakers}"
        f"{languages}) for at most {wording.plural(steps, 'step')}; each row is one run. Longer training, other clips "
        "or another seed may order the targets differently, and intervals do not cover that."
    )


def _speakers(healing: Healing) -> str:
    shared = healing.settings.get("shared_speakers")
    if isinstance(shared, int) and not isinstance(shared, bool):
        if shared == 0:
            return ""
        return f"{wording.plural(shared, 'speaker')} of the test clips also spoke clips that were healed on."
    return "Whether the test clips have speakers that were also healed on is not recorded."
