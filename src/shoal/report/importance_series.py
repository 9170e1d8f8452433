"""Values by layer, with intervals, and the layers that were refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shoal import wording
from shoal.report.units import PLAIN, Unit, unit_of
from shoal.schema import Estimate, Importance

QUANTITIES = {
    "score": "rise of {unit}",
    "loss": "rise of the loss",
    "kl": "KL from the full model",
    "absolute": "absolute",
    "signed": "signed",
}


@dataclass(frozen=True)
class Series:
    """Layer → estimate as it is drawn, and layer → why it has none."""

    values: dict[int, Estimate]
    refused: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    """Layer → what else a reader must know, such as that it was measured on fewer clips."""
    unit: Unit = PLAIN

    @classmethod
    def of(cls, estimates: Sequence[Estimate]) -> Series:
        """One estimate for each layer, none refused."""
        return cls(dict(enumerate(estimates)))

    def spread(self) -> list[tuple[int, Estimate | None]]:
        """All layers from the first to the last, so that a line breaks where one has no value."""
        layers = range(min(self.values, default=0), max(self.values, default=-1) + 1)
        return [(layer, self.values.get(layer)) for layer in layers]

    def sizes(self) -> list[float]:
        """The values alone."""
        return [estimate.value for estimate in self.values.values()]

    def bounds(self) -> list[float]:
        """Every number that must find room on the axis."""
        triples = [(e.low, e.value, e.high) for e in self.values.values()]
        return [bound for triple in triples for bound in triple if bound is not None]

    def order(self) -> list[int]:
        """Layers from the safest to remove to the most needed."""
        return sorted(self.values, key=lambda layer: self.values[layer].value)

    def hover(self, layer: int) -> str:
        """What the pointer shows."""
        note = f"<br>{self.notes[layer]}" if layer in self.notes else ""
        unit = f" {self.unit.name}" if self.unit.name else ""
        return f"layer {layer}: {self.cell(layer)}{unit}{note}"

    def cell(self, layer: int) -> str:
        """The value with its interval, `refused`, or a dash."""
        if layer in self.values:
            return PLAIN.bare(self.values[layer])
        return "refused" if layer in self.refused else "–"


def panel_title(item: Importance) -> str:
    """Such as `Ablation: rise of the loss (nats a token)`."""
    quantity = QUANTITIES[item.quantity].format(unit=item.unit)
    unit = unit_of(item.unit).name
    scope = "" if item.scope == "text" else f", {item.scope} tokens"
    return f"{item.metric.capitalize()}: {quantity}{scope}" + (f" ({unit})" if unit else "")


def single_layers(item: Importance) -> Series:
    """The candidates of one layer."""
    unit = unit_of(item.unit)
    places = {layers[0]: place for place, layers in enumerate(item.candidates) if len(layers) == 1}
    found = {layer: estimate_at(item, place) for layer, place in places.items()}
    return Series(
        values={layer: unit.scaled(estimate) for layer, estimate in sorted(found.items()) if estimate},
        refused={layer: item.refused[place] for layer, place in places.items() if place in item.refused},
        notes={layer: note for layer, place in places.items() if (note := fewer_clips(item, place))},
        unit=unit,
    )


def estimate_at(item: Importance, place: int) -> Estimate | None:
    """The value of one candidate with its interval; None where it has none."""
    value = item.values[place]
    if value is None:
        return None
    low, high = (None if bounds is None else bounds[place] for bounds in (item.low, item.high))
    return Estimate(value=value, low=low, high=high)


def fewer_clips(item: Importance, place: int) -> str:
    """Says so where a race dropped a candidate before all clips were measured."""
    clips = item.clips[place]
    return "" if clips >= item.utterances else f"on {clips} of {wording.plural(item.utterances, 'clip')}"
