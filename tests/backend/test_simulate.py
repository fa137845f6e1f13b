"""Simulated projects on a synthetic model: the order of work, and who sees what."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.analysis.simulated_annotator import IDEAL
from backend.analysis.simulated_project import Round, Strategy
from backend.analysis.simulation_report import report
from backend.domain.learning import Contest, Mode, Ruling, TrainingRequest
from backend.domain.records import Picture
from backend.domain.review import CARDS
from backend.domain.training_data import FrozenData, Part
from backend.errors import ImageError, StorageError
from backend.services.simulate import Simulation, SimulationSettings
from backend.simulation_output import table
from tests.simulated import Learner, always, make_tools, make_true_project, never
from tests.synthetic import SyntheticDetector

POOR = SyntheticDetector(recall=0.3, invented=4, spread=0.15, separation=1)
GOOD = SyntheticDetector(recall=0.95, invented=1, spread=0.02, separation=3)
SILENT = SyntheticDetector(recall=0, invented=0)
PERFECT = SyntheticDetector(recall=1, invented=0, spread=0, confusion=0, shift=10)
RANDOM, ACTIVE, ZERO_SHOT = Strategy.RANDOM, Strategy.ACTIVE, Strategy.ZERO_SHOT
PROJECT = make_true_project(18, 4)


def rounds_of(simulation: Simulation, *strategies: Strategy, seeds: Sequence[int] = (0,)) -> list[Round]:
    return [each for strategy in strategies for seed in seeds for each in simulation.run(strategy, seed)]


def names(rounds: Sequence[Round]) -> list[list[str]]:
    return [[review.image for review in each.drawn] for each in rounds]


@pytest.mark.parametrize("strategy", Strategy)
def test_every_image_is_reviewed_once_whatever_the_order(strategy: Strategy, tmp_path: Path) -> None:
    learner = Learner(PROJECT, POOR, GOOD)
    rounds = rounds_of(Simulation(PROJECT, make_tools(learner, tmp_path), SimulationSettings(batch=10)), strategy)
    assert [len(each) for each in names(rounds)] == [10, 8]
    assert sorted(name for batch in names(rounds) for name in batch) == [image.name for image in PROJECT.pool]
    for each in rounds:
        assert all([review.image for review in reviews] == names([each])[0] for reviews in each.reviews.values())


def test_random_order_is_the_same_whatever_the_model_is_worth(tmp_path: Path) -> None:
    project = make_true_project(40, 2)
    orders = []
    for model in (SILENT, PERFECT):
        simulation = Simulation(project, make_tools(Learner(project, model, model), tmp_path), SimulationSettings(10))
        orders.append(names(rounds_of(simulation, ZERO_SHOT)))
    assert orders[0] == orders[1]


def test_a_model_looks_at_an_image_once_for_all_strategies_and_seeds(tmp_path: Path) -> None:
    learner = Learner(PROJECT, POOR, GOOD)
    simulation = Simulation(PROJECT, make_tools(learner, tmp_path), SimulationSettings(batch=6))
    rounds_of(simulation, ZERO_SHOT, RANDOM, seeds=(0, 1))
    assert len(set(learner.asked)) == len(learner.asked)


@pytest.mark.parametrize("seed", range(4))
def test_while_no_box_can_be_learned_from_nothing_is_trained(seed: int, tmp_path: Path) -> None:
    learner = Learner(PROJECT, POOR, GOOD)
    rounds = rounds_of(
        Simulation(PROJECT, make_tools(learner, tmp_path), SimulationSettings(batch=1)), RANDOM, seeds=[seed]
    )
    assert sum(len(each.drawn) for each in rounds) == len(PROJECT.pool)
    assert learner.trained


def test_the_model_learns_from_what_was_reviewed_so_far_and_never_from_test_images(tmp_path: Path) -> None:
    learner = Learner(PROJECT, POOR, GOOD)
    simulation = Simulation(PROJECT, make_tools(learner, tmp_path), SimulationSettings(batch=6))
    rounds = rounds_of(simulation, RANDOM)
    known = {image.name: image.sha256 for image in PROJECT.pool}
    learned = [{image.sha256 for image in data.images} for data in learner.trained]
    reviewed = [{known[name] for name in batch} for batch in names(rounds)]
    assert learned == [reviewed[0], reviewed[0] | reviewed[1]]


def test_a_candidate_on_which_the_gate_could_not_look_was_no_try(tmp_path: Path) -> None:
    contests: list[Contest] = []

    def blind(contest: Contest) -> Ruling:
        contests.append(contest)
        return replace(never(contest), compared=False)

    tools = make_tools(Learner(PROJECT, POOR, GOOD), tmp_path, judge=blind)
    rounds_of(Simulation(PROJECT, tools, SimulationSettings(batch=6)), RANDOM)
    # Six candidates, after 6, 8 … 16 images, and a look at the one before with all but the first.
    assert [contest.attempt for contest in contests] == [1] * 11


def test_a_candidate_proposes_only_after_the_gate_let_it_pass(tmp_path: Path) -> None:
    contests: list[Contest] = []

    def second_passes(contest: Contest) -> Ruling:
        contests.append(contest)
        return (always if len(contests) == 2 else never)(contest)

    learner = Learner(PROJECT, POOR, GOOD)
    tools = make_tools(learner, tmp_path, judge=second_passes)
    rounds = rounds_of(Simulation(PROJECT, tools, SimulationSettings(batch=5)), RANDOM, seeds=[1])
    assert [each.model for each in rounds] == [*["synthetic-01234567"] * 2, "synthetic-0002", "synthetic-0002"]
    assert [each.ruling and each.ruling.promote for each in rounds] == [False, True, False, None]
    assert [contest.attempt for contest in contests] == [1, 2, 1]
    assert all(image.part is not Part.TRAIN for contest in contests for image in contest.images)
    first = dict(zip(contests[1].images, contests[1].candidate.proposals, strict=True))
    then = dict(zip(contests[2].images, contests[2].production.proposals, strict=True))
    assert first
    assert all(then[image] == proposals for image, proposals in first.items())


def test_what_was_refused_though_promising_learns_on_and_is_looked_at_again(tmp_path: Path) -> None:
    learner, contests = Learner(PROJECT, POOR, GOOD), list[Contest]()
    refused = Ruling(False, "not clearly faster", {})
    better, promising = Ruling(True, "faster", {}), replace(refused, may_pay=True)
    # Trainings after 3, 6, 9 and 14 images; what the second one made is looked at again after the next two.
    # What the fourth one made is then held against it.
    rulings = iter([better, promising, refused, refused, promising, better, refused])

    def judge(contest: Contest) -> Ruling:
        contests.append(contest)
        return next(rulings)

    tools = make_tools(learner, tmp_path, judge=judge)
    settings = SimulationSettings(batch=3, mode=Mode.FULL)
    rounds = rounds_of(Simulation(PROJECT, tools, settings), RANDOM, seeds=[1])
    first, second, third, fourth = learner.starts
    assert first is None
    assert second is not None
    assert second.parent == tmp_path
    assert third == fourth
    assert third not in (None, second)
    assert [data.start for data in learner.trained] == [start and start.name for start in learner.starts]
    assert [contest.attempt for contest in contests] == [1, 1, 2, 3, 4, 5, 1]
    assert [each.looked_again for each in rounds] == [None, None, refused, None, better, None, None]
    assert rounds[-1].model == "synthetic-0002"
    again = contests[5]
    learned = {image.sha256 for image in learner.trained[1].part(Part.TRAIN)}
    seen = {image.sha256 for image in again.images}
    assert not seen & learned
    assert seen & {image.sha256 for image in learner.trained[3].part(Part.TRAIN)}


def test_a_few_more_images_are_enough_where_the_gate_could_not_judge(tmp_path: Path) -> None:
    rulings = iter([Ruling(False, "too few images", {}, compared=False), *[Ruling(False, "slower", {})] * 2])
    tools = make_tools(Learner(PROJECT, POOR, GOOD), tmp_path, judge=lambda contest: next(rulings))
    rounds = rounds_of(Simulation(PROJECT, tools, SimulationSettings(batch=6, rounds=1)), RANDOM)
    # A fifth of 6 is due after the first training, which is none of the one that was asked for.
    assert [len(batch) for batch in names(rounds)] == [6, 2, 6, 4]
    assert [each.ruling is None for each in rounds] == [False, False, True, True]


def test_nothing_learns_where_only_zero_shot_is_wanted_or_after_the_last_round(tmp_path: Path) -> None:
    learner = Learner(PROJECT, POOR, GOOD)
    simulation = Simulation(PROJECT, make_tools(learner, tmp_path), SimulationSettings(batch=5, rounds=2))
    assert all(each.ruling is None for each in rounds_of(simulation, ZERO_SHOT))
    assert [each.ruling is None for each in rounds_of(simulation, RANDOM, seeds=[1])] == [False, False, True, True]
    assert len(learner.trained) == 2


def test_the_same_seed_gives_the_same_project_and_another_seed_another(tmp_path: Path) -> None:
    def rounds(seed: int, folder: str) -> list[Round]:
        (tmp_path / folder).mkdir()
        tools = make_tools(Learner(PROJECT, POOR, GOOD), tmp_path / folder)
        rounds = rounds_of(Simulation(PROJECT, tools, SimulationSettings(batch=6)), RANDOM, seeds=(seed,))
        return [replace(each, training_seconds=0) for each in rounds]

    assert rounds(0, "a") == rounds(0, "b")
    assert names(rounds(0, "c")) != names(rounds(1, "d"))


def test_what_was_trained_is_taken_up_when_the_simulation_is_run_again(tmp_path: Path) -> None:
    learners = [Learner(PROJECT, POOR, GOOD) for _ in range(2)]
    first, again = (
        rounds_of(Simulation(PROJECT, make_tools(each, tmp_path), SimulationSettings(batch=6)), RANDOM, ACTIVE)
        for each in learners
    )
    # Chance chooses the first batch of either order.
    assert [len(each.trained) for each in learners] == [3, 0]
    assert again == first


def test_a_training_whose_end_cannot_be_written_is_not_taken_for_finished(tmp_path: Path) -> None:
    class OnFullDisk(Learner):
        def train(
            self, data: FrozenData, request: TrainingRequest, start: Path | None, folder: Path, told: Any
        ) -> Mode:
            mode = super().train(data, request, start, folder, told)
            (folder / "trained.aside").symlink_to("/dev/full")
            return mode

    tools = make_tools(OnFullDisk(PROJECT, POOR, GOOD), tmp_path)
    with pytest.raises(StorageError, match=r"trained\.json: cannot be written \(No space left on device\)"):
        rounds_of(Simulation(PROJECT, tools, SimulationSettings(batch=6)), RANDOM)
    assert list(tmp_path.rglob("trained.json")) == []


def test_an_image_that_cannot_be_had_ends_the_simulation(tmp_path: Path) -> None:
    class Nothing:
        def fetch(self, reference: str, task_id: int | None = None) -> Picture:
            raise ImageError(f"{reference}: not there")

    tools = make_tools(Learner(PROJECT, POOR, GOOD), tmp_path, images=Nothing())
    with pytest.raises(ImageError, match="not there"):
        rounds_of(Simulation(PROJECT, tools, SimulationSettings()), ZERO_SHOT)


def test_a_model_that_finds_nothing_saves_nothing(tmp_path: Path) -> None:
    tools = make_tools(Learner(PROJECT, SILENT, SILENT), tmp_path)
    figures = report(rounds_of(Simulation(PROJECT, tools, SimulationSettings()), ZERO_SHOT, seeds=(0, 1)))
    assert {(each.share.value, each.share.low, each.share.high) for each in figures.savings} == {(0.0, 0.0, 0.0)}


def test_a_perfect_model_saves_what_the_costs_allow(tmp_path: Path) -> None:
    tools = make_tools(Learner(PROJECT, PERFECT, PERFECT), tmp_path)
    settings = SimulationSettings(costs=CARDS, human=IDEAL)
    figures = report(rounds_of(Simulation(PROJECT, tools, settings), ZERO_SHOT))
    counts = [len(image.objects) for image in PROJECT.pool]
    drawing = len(counts) + 7 * sum(counts)
    reviewing = len(counts) + sum(0.3 * count**0.5 + 1.8 * count for count in counts)
    saving = figures.saving(ZERO_SHOT, 7.0)
    assert figures.drawing_seconds[7.0] == pytest.approx(drawing)
    assert saving.seconds == pytest.approx(reviewing)
    assert saving.share.value == pytest.approx(1 - reviewing / drawing)
    assert saving.actions == len(counts) + sum(counts)
    assert figures.qualities[0].labels.f1 == 1.0


def test_learning_saves_and_fitted_thresholds_come_close_to_the_best_fixed_cut(tmp_path: Path) -> None:
    project = make_true_project(32, 0)
    tools = make_tools(Learner(project, POOR, GOOD), tmp_path)
    simulation = Simulation(project, tools, SimulationSettings(batch=8))
    figures = report(rounds_of(simulation, ZERO_SHOT, RANDOM, seeds=(0, 1)))
    for draw in (7.0, 25.5):
        learned = figures.saving(RANDOM, draw)
        assert learned.share.low > figures.saving(ZERO_SHOT, draw).share.high
        assert learned.share.value > figures.best_cut(RANDOM, draw).share.value - 0.02
    assert figures.saving(RANDOM, 25.5).share.value > figures.saving(RANDOM, 7.0).share.value
    assert all(each.counts for each in figures.qualities)


def test_a_strict_person_gets_tighter_labels_for_more_seconds(tmp_path: Path) -> None:
    loose = replace(GOOD, spread=0.06)
    tools = make_tools(Learner(PROJECT, loose, loose), tmp_path)
    figures = report(rounds_of(Simulation(PROJECT, tools, SimulationSettings()), ZERO_SHOT))
    lenient, strict = figures.qualities
    assert (lenient.strict, strict.strict) == (False, True)
    assert (strict.labels.mean_iou or 0) > (lenient.labels.mean_iou or 0) + 0.01
    for draw in (7.0, 25.5):
        saved = figures.saving(ZERO_SHOT, draw, strict=True).share.value
        assert 0 < saved < figures.saving(ZERO_SHOT, draw).share.value
    assert sum("adjusted below 0.9" in line for line in table(figures)) == 2
