"""The child of ``TrainingProcess``, which is told to end in the very moment in which it has claimed its job."""

import os
import signal
import sys

import backend.bootstrap
from backend.services.learn import Learn
from backend.services.training import Claim, Training
from backend.settings import Settings
from backend.training_process import main
from tests.training_child import learn_in, open_in


class StoppedTraining(Training):
    def claim(self, worker: str, wanted: int | None = None) -> Claim | None:
        claim = super().claim(worker, wanted)
        os.kill(os.getpid(), signal.SIGTERM)
        return claim


def build_learn(settings: Settings) -> tuple[Training, Learn]:
    _, learn = learn_in(settings.home, 0.0, lambda project: None)
    return StoppedTraining(open_in(settings.home)), learn


if __name__ == "__main__":
    backend.bootstrap.build_learn = build_learn
    sys.exit(main(sys.argv[1:]))
