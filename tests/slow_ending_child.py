"""The child of ``TrainingProcess``, with a trainer that only counts and a Label Studio that takes its time."""

import sys
import time

import backend.bootstrap
from backend.services.learn import Learn
from backend.services.training import Training
from backend.settings import Settings
from backend.training_process import main
from tests.training_child import learn_in

ANNOUNCED = "announced"  # file of the home that tells that Label Studio knows
SECONDS = 2.0  # that it takes to be told


def build_learn(settings: Settings) -> tuple[Training, Learn]:
    def announce(project: str) -> None:
        time.sleep(SECONDS)
        (settings.home / ANNOUNCED).touch()

    return learn_in(settings.home, 0.0, announce)


if __name__ == "__main__":
    backend.bootstrap.build_learn = build_learn
    sys.exit(main(sys.argv[1:]))
