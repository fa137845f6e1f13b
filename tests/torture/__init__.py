"""The service under torture: real processes, killed at any moment while events pour in; see ``__main__``."""
