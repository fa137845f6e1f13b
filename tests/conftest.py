"""What holds for every test."""

from hypothesis import HealthCheck, settings

# A machine may be busy: how long an example takes says nothing about what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
