"""The card itself: its sections put together. Pruning, healing, training and `shoal card` all write it here."""

from __future__ import annotations

from shoal._version import __version__
from shoal.cards import history, results
from shoal.cards.facts import OURS, CardFacts
from shoal.cards.front_matter import front_matter
from shoal.cards.limits import not_validated
from shoal.cards.speaking import GENERATION
from shoal.models.lineage import HEAL_FILE, TRAINING_FILE

UNHEARD = (
    "> [!WARNING]\n> This model answers in speech, and nothing was tested of what the changes to its decoder do to "
    f"that. This stands here until a `{GENERATION}` result is attached."
)


def page(facts: CardFacts) -> str:
    """README.md of a checkpoint, with front matter that the Hugging Face Hub reads.

    Args:
        facts: everything that is known of the checkpoint; the same facts give the same text.
    """
    parts = [
        _front_matter(facts),
        f"# {facts.title}",
        UNHEARD if facts.unheard else "",
        history.usage(facts),
        history.removed(facts),
        history.healed(facts),
        history.trained(facts),
        history.checked(facts),
        results.scores(facts),
        results.costs(facts),
        results.audits(facts),
        not_validated(facts),
        history.plan(facts),
        _footer(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(facts: CardFacts) -> str:
    trained_only = facts.training is not None and not facts.changed
    base: str | list[str] = facts.adapter_of or (facts.model.ref if facts.model is not None else "")
    tags = ["shoal"]
    if trained_only:
        assert facts.training is not None
        base = [facts.training.recipe["encoder"], facts.training.recipe["decoder"]]
        tags += ["speech", "automatic-speech-recognition"]
    tags += (["layer-pruning"] if facts.changed else []) + (["healed"] if facts.healed_last else [])
    own = facts.adapters and facts.adapter_of is None
    return front_matter(
        library="peft" if facts.adapter_of else "shoal" if own else "transformers",
        base=base,
        licence=facts.licence,
        tags=tags,
        name=facts.title,
        measured=facts.measured,
    )


def _footer(facts: CardFacts) -> str:
    files = [HEAL_FILE] if facts.healed_last else []
    files += [TRAINING_FILE] if facts.training is not None else []
    whole = f"; the whole record is in {' and '.join(f'`{name}`' for name in files)}" if files else ""
    return f"{OURS} {__version__}{whole}."
