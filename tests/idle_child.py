"""A child of ``TrainingProcess`` that does nothing for ten minutes, as one that comes up on a busy machine."""

import time

if __name__ == "__main__":
    time.sleep(600)
