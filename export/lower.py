"""Choose exact rewrites of a model by measuring them on this processor: `lower(model, feed)`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import NodeProto

from edgegan.errors import ExportError
from edgegan.export.graph import Array, Graph
from edgegan.export.rewrites import ALWAYS, MEASURED, Rule
from edgegan.session import open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TOLERANCE = 1e-5  # of the output's range: what float32 rounds differently
ROUNDED = TOLERANCE / 2  # of what rounds more: other latents may differ by more than those that are measured
WORTH = 0.99  # of the time that was; what gains less is noise
GROWTH = 1.5  # of the weights' bytes: what rounds more and makes a larger file is not taken
SECONDS = 0.25  # to measure one choice
MAX_SECONDS = 1.0  # after which no more rounds are begun; a round is run even if it takes longer
MIN_ROUNDS, MAX_ROUNDS = 5, 200
LONG = 0.05  # seconds of a run to which it makes no difference what the caches held

Prepare = Callable[[onnx.ModelProto], onnx.ModelProto]
Choices = Sequence[Sequence[Rule]]  # as MEASURED is


@dataclass(frozen=True)
class Applied:
    """A rewrite that was applied."""

    name: str
    at: str  # the node that it began with: its operator and the shapes of its input and output
    # The share of the whole model's time that it saved, negative if it cost some; None: not measured.
    gain: float | None
    difference: float  # the largest of an output between the model as it was given and with it, in its range


@dataclass(frozen=True)
class Lowered:
    """A model that draws the same in less time."""

    model: onnx.ModelProto
    applied: list[Applied]


def lower(
    model: onnx.ModelProto,
    feed: dict[str, Array],
    *,
    measure: bool = True,
    prepare: Prepare | None = None,
    choices: Choices | None = None,
) -> Lowered:
    """Rewrite a model so that it draws the same in less time. The given one is left as it is.

    feed: inputs by name, as onnxruntime takes them; the batch for which to be fast, on one thread. Rules that leave
    less work are applied wherever they match. Of those that do the same work in another way, each node gets the
    fastest; without `measure` it gets the first that matches, so that the result is the same on every machine. With it,
    a result that is slower as a whole than the given model is not used. Rules that round more than float32 sums in
    another order do (winograd.py) are only used where it is measured that they differ by at most half of what is
    allowed, and the weights grow by no more than half.

    prepare: what will be done to the result before it runs, such as making it int8. Times are those of prepare(model);
    the result is not prepared. Rules that round more are left out then: their transforms have no use between 8 bits.

    choices: the rules that do the same work in another way, default all, MEASURED.

    Raises ModelError for a model that onnxruntime does not load, ExportError if a rewrite changes the output by more
    than 1e-5 of its range, which would be a mistake of ours.
    """
    race, rounding = _Race(model, feed, prepare), measure and prepare is None
    graph, applied = Graph(model), list[Applied]()
    for rule in ALWAYS:
        other = graph.copy()
        sites = [at for site in _names(other) if (at := _apply(other, site, rule)) is not None]
        if sites:
            gain = 1 - race.ratio(graph, other)[0] if measure else None
            applied.append(race.applied(rule, ", ".join(dict.fromkeys(sites)), other, gain))
            graph = other
    for rules in MEASURED if choices is None else choices:
        for site in _names(graph):
            found = []
            for rule in rules:
                if rule.rounds and not rounding:
                    continue
                other = graph.copy()
                at = _apply(other, site, rule)
                if at is not None and (not rule.rounds or race.allows(other)):
                    found.append((rule, at, other))
            if not found:
                continue
            ratios = race.ratio(graph, *(other for _, _, other in found)) if measure else [0.0]
            best = int(np.argmin(ratios))
            if ratios[best] <= WORTH:
                rule, at, other = found[best]
                applied.append(race.applied(rule, at, other, 1 - ratios[best] if measure else None))
                graph = other
    if not applied or (measure and race.ratio(Graph(model), graph)[0] > 1):
        return Lowered(model, [])
    return Lowered(graph.model(), applied)


def _names(graph: Graph) -> list[str]:
    return [node.output[0] for node in graph.nodes]


def _apply(graph: Graph, site: str, rule: Rule) -> str | None:
    """Rewrite the node that makes `site`, and say what it was; None if it is gone or not of the rule's pattern."""
    node = graph.producer(site)
    if node is None:
        return None
    at = _shown(graph, node)
    return at if rule.rewrite(graph, node) else None


def _shown(graph: Graph, node: NodeProto) -> str:
    shapes = (graph.shape(node.input[0]) if node.input else None, graph.shape(node.output[0]))
    return f"{node.op_type} {' -> '.join('x'.join(str(n or 'N') for n in shape) if shape else '?' for shape in shapes)}"


class _Race:
    """Times and outputs of rewritten graphs on the same inputs."""

    def __init__(self, model: onnx.ModelProto, feed: dict[str, Array], prepare: Prepare | None) -> None:
        self._feed, self._prepare = feed, prepare or (lambda model: model)
        self._expected = self._open(model).run(None, feed)[0]
        self._weight_bytes = Graph(model).weight_bytes

    @staticmethod
    def _open(model: onnx.ModelProto) -> "InferenceSession":
        return open_session(model.SerializeToString(), "the model to be exported", threads=1, small=True)[0]

    def times(self, *graphs: Graph) -> list[float]:
        """The shortest time of each in seconds, all in turn: other work on the machine only ever adds time."""
        # All is computed in this thread. Its own time leaves out when others ran, but Windows counts it in 1/64 s.
        fine = time.get_clock_info("thread_time").resolution <= 1e-6
        clock = time.thread_time if fine else time.perf_counter
        sessions = [self._open(self._prepare(graph.model())) for graph in graphs]
        best = [float("inf")] * len(sessions)
        begin = time.perf_counter()
        for done in range(1, MAX_ROUNDS + 1):
            for index, session in enumerate(sessions):
                if not LONG < best[index] < float("inf"):
                    session.run(None, self._feed)  # brings its weights back into the caches
                start = clock()
                session.run(None, self._feed)
                best[index] = min(best[index], clock() - start)
            spent = (time.perf_counter() - begin) / len(sessions)
            if spent > SECONDS and (done >= MIN_ROUNDS or spent > MAX_SECONDS):
                break
        return best

    def ratio(self, before: Graph, *after: Graph) -> list[float]:
        """The times of some graphs, as shares of another's."""
        first, *others = self.times(before, *after)
        return [seconds / first for seconds in others]

    def difference(self, graph: Graph) -> float:
        """The largest of an output from what the model as given draws, in the output's range."""
        found = self._open(graph.model()).run(None, self._feed)[0]
        scale = max(float(np.ptp(self._expected)), float(np.abs(self._expected).max())) or 1.0
        return float(np.abs(found - self._expected).max()) / scale

    def allows(self, graph: Graph) -> bool:
        """Whether a graph with a rewrite that rounds more is near enough to the given one, and small enough."""
        return graph.weight_bytes <= GROWTH * self._weight_bytes and self.difference(graph) <= ROUNDED

    def applied(self, rule: Rule, at: str, graph: Graph, gain: float | None) -> Applied:
        """The record of a rewrite, once its output is found to be what it was."""
        difference = self.difference(graph)
        if not difference <= TOLERANCE:  # the negation also catches NaN
            raise ExportError(
                f"the rewrite {rule.name} of {at} changes the output by {difference:.3g} of its range, "
                f"allowed is {TOLERANCE:g}; export with --lower none, and report this"
            )
        return Applied(rule.name, at, gain, difference)
